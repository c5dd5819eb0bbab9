//! The frame around every page: navigation by role, who is signed in, the CSRF token of its forms.

use crate::auth::{Role, SignedIn};

/// An entry of the navigation.
pub(crate) struct NavItem {
    pub(crate) href: &'static str,
    pub(crate) label: &'static str,
    /// Path data of a 24 × 24 stroke icon.
    pub(crate) icon: &'static str,
    roles: &'static [Role],
}

/// All pages, in order; each role sees its own.
const NAVIGATION: [NavItem; 14] = [
    NavItem {
        href: "/usage",
        label: "Usage",
        icon: "M3 17l6-6 4 4 8-8M15 7h6v6",
        roles: &[Role::Customer],
    },
    NavItem {
        href: "/subscriptions",
        label: "Subscriptions",
        icon: "M4 12a8 8 0 0114-5l2 2M20 4v5h-5M20 12a8 8 0 01-14 5l-2-2M4 20v-5h5",
        roles: &[Role::Customer],
    },
    NavItem {
        href: "/plans",
        label: "Plans",
        icon: "M4 5h7v6H4zM4 15h7v4H4zM15 5h5v4h-5zM15 13h5v6h-5z",
        roles: &[Role::Customer],
    },
    NavItem {
        href: "/invoices",
        label: "Invoices",
        icon: "M6 3h12v18l-3-2-3 2-3-2-3 2zM9 8h6M9 12h6",
        roles: &[Role::Customer],
    },
    NavItem {
        href: "/credit",
        label: "Credit",
        icon: "M3 8h15a3 3 0 013 3v6a3 3 0 01-3 3H6a3 3 0 01-3-3zM3 8l12-4v4M17 14h.01",
        roles: &[Role::Customer],
    },
    NavItem {
        href: "/budget",
        label: "Budget",
        icon: "M4 18a8 8 0 1116 0M12 18l4-6M4 18h2M18 18h2",
        roles: &[Role::Customer],
    },
    NavItem {
        href: "/payment-methods",
        label: "Payment methods",
        icon: "M3 6h18v12H3zM3 10h18M7 15h4",
        roles: &[Role::Customer],
    },
    NavItem {
        href: "/webhooks",
        label: "Webhooks",
        icon: "M9 8a4 4 0 117 2l3 5M8 9l-3 6a3 3 0 106 1h6a3 3 0 103-1",
        roles: &[Role::Customer],
    },
    NavItem {
        href: "/ops",
        label: "Traffic",
        icon: "M4 20V10M10 20V4M16 20v-8M22 20H2",
        roles: &[Role::Ops, Role::Network, Role::Admin],
    },
    NavItem {
        href: "/exporters",
        label: "Exporters",
        icon: "M3 5h18v5H3zM3 14h18v5H3zM7 7.5h.01M7 16.5h.01",
        roles: &[Role::Network, Role::Ops, Role::Admin],
    },
    NavItem {
        href: "/ops/jobs",
        label: "Jobs",
        icon: "M12 21a9 9 0 100-18 9 9 0 000 18zM12 7v5l3 3",
        roles: &[Role::Ops, Role::Admin],
    },
    NavItem {
        href: "/finance",
        label: "Finance",
        icon: "M12 3v18M17 7c0-2-2-3-5-3S7 5 7 7.500 9 11 12 11.500s5 1.500 5 4-2 4-5 4-5-1.500-5-3.500",
        roles: &[Role::Finance, Role::Admin],
    },
    NavItem {
        href: "/admin",
        label: "Administration",
        icon: "M4 7h10M18 7h2M4 12h4M12 12h8M4 17h12M16 5v4M10 10v4M18 15v4",
        roles: &[Role::Admin],
    },
    NavItem {
        href: "/account",
        label: "Account",
        icon: "M12 12a4 4 0 100-8 4 4 0 000 8zM4 21c0-4 4-6 8-6s8 2 8 6",
        roles: &[Role::Customer, Role::Ops, Role::Network, Role::Finance, Role::Admin],
    },
];

/// What `base.html` needs. Every page's template has one as its field `shell`.
pub(crate) struct Shell {
    pub(crate) title: String,
    /// The `href` of the navigation entry this page belongs to.
    pub(crate) active: &'static str,
    pub(crate) user_name: String,
    pub(crate) user_email: String,
    pub(crate) role_label: &'static str,
    pub(crate) csrf_token: String,
    /// Unread notifications as the bell says them, empty for none; absent for who has no bell.
    pub(crate) unread: Option<String>,
    /// Where to decide on billing that is stopped; `None` while it runs, and for customers.
    pub(crate) billing_stopped: Option<&'static str>,
    pub(crate) nav: Vec<&'static NavItem>,
    /// Staff has a box to search with; what it holds.
    pub(crate) searches: bool,
    pub(crate) asked: String,
}

impl Shell {
    pub(crate) fn new(who: &SignedIn, title: impl Into<String>, active: &'static str) -> Shell {
        Shell {
            title: title.into(),
            active,
            user_name: who.user.name.clone(),
            user_email: who.user.email.clone(),
            role_label: who.user.role.label(),
            csrf_token: who.csrf_token.clone(),
            unread: who.user.customer.map(|_| match who.unread {
                0 => String::new(),
                unread @ 1..=99 => unread.to_string(),
                _ => "99+".to_owned(),
            }),
            billing_stopped: match (who.billing_stopped, who.user.role) {
                (false, _) | (_, Role::Customer) => None,
                (true, Role::Admin) => Some("/admin/clock"),
                (true, _) => Some(""),
            },
            nav: NAVIGATION
                .iter()
                .filter(|item| item.roles.contains(&who.user.role))
                .collect(),
            searches: who.user.role != Role::Customer,
            asked: String::new(),
        }
    }
}

/// The first page of a role.
pub(crate) fn home(role: Role) -> &'static str {
    NAVIGATION
        .iter()
        .find(|item| item.roles.first() == Some(&role) || (role == Role::Admin && item.roles.contains(&role)))
        .map_or("/account", |item| item.href)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_has_a_home_it_may_see() {
        for (role, page) in [
            (Role::Customer, "/usage"),
            (Role::Ops, "/ops"),
            (Role::Network, "/exporters"),
            (Role::Finance, "/finance"),
            (Role::Admin, "/ops"),
        ] {
            assert_eq!(home(role), page);
        }
    }
}
