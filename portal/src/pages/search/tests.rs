//! Who finds what, and that nothing is found by whom it is not for (S1).

use axum::http::StatusCode;
use schemas::assignment::Target;
use schemas::inventory::assign;

use crate::auth::Role;
use crate::testing::world::{START_MS, World};
use crate::testing::{Browser, NOW_MS};

/// Kinds and names, as the page lists them.
async fn found(browser: &mut Browser, asked: &str) -> Vec<String> {
    let asked = crate::pages::finance::url_encoded(asked);
    let answer = browser.get(&format!("/search?q={asked}")).await;
    assert_eq!(answer.status, StatusCode::OK, "{asked}");
    let rows = answer.body.split("data-hit=\"").skip(1);
    rows.map(|row| row.split('"').next().unwrap_or_default().to_owned())
        .collect()
}

async fn world() -> World {
    let world = World::new().await;
    let mut transaction = world.portal.state.db().begin_write().await.unwrap();
    for (prefix, to_ms) in [("10.0.0.0/29", None), ("10.9.0.0/24", Some(NOW_MS - 1))] {
        let target = Target::Prefix(prefix.parse().unwrap());
        assign(&mut transaction, world.transfer, target, START_MS, to_ms, NOW_MS)
            .await
            .unwrap();
    }
    transaction.commit().await.unwrap();
    for role in [Role::Ops, Role::Network, Role::Finance, Role::Admin] {
        world.portal.user(role.name(), role, None).await;
    }
    world
}

#[tokio::test]
async fn each_role_finds_what_its_pages_show() {
    let world = world().await;
    let number = {
        use sqlx::Row as _;
        let row = sqlx::query("SELECT number FROM invoices WHERE id = $1")
            .bind(world.invoice_of_ada.0)
            .fetch_one(world.portal.state.db().pool())
            .await
            .unwrap();
        row.get::<String, _>(0)
    };
    for role in [Role::Ops, Role::Network, Role::Finance, Role::Admin] {
        let mut browser = world.portal.signed_in(role.name()).await;
        let money = matches!(role, Role::Finance | Role::Admin);
        assert_eq!(found(&mut browser, "db-pri").await, ["Service db-primary"], "{role}");
        assert_eq!(found(&mut browser, "svc_1").await, ["Service db-primary"], "{role}");
        assert_eq!(found(&mut browser, "10.0.0.3").await, ["Service db-primary"], "{role}");
        assert_eq!(
            found(&mut browser, "10.0.0.0/8").await,
            ["Service db-primary"; 2],
            "{role}: one of the past too"
        );
        assert_eq!(found(&mut browser, "ada").await, ["Customer ada"], "{role}");
        let of_ada = found(&mut browser, &world.ada.to_string()).await;
        assert_eq!(
            of_ada,
            ["Customer ada", "Service db-primary", "Service edge-cache"],
            "{role}"
        );
        let invoice = format!("Invoice {number}");
        let expected: &[String] = if money { &[invoice] } else { &[] };
        assert_eq!(found(&mut browser, &number).await, expected, "{role}");
        assert_eq!(
            found(&mut browser, &world.invoice_of_ada.to_string()).await,
            expected,
            "{role}"
        );
        for nothing in [
            "",
            "svc_99",
            "no such thing",
            "%",
            "_",
            "'; DROP TABLE services",
            "198.51.100.1",
            "::/129",
        ] {
            assert_eq!(found(&mut browser, nothing).await, [""; 0], "{role}: {nothing}");
        }
        let page = browser.get("/search?q=198.51.100.1").await;
        assert!(page.body.contains("No service holds"), "{}", page.body);
        // Every link leads somewhere that the role may see.
        for asked in ["db", "10.0.0.3", "ada", &number] {
            let page = browser.get(&format!("/search?q={asked}")).await.body;
            for link in page
                .split("data-hit=")
                .skip(1)
                .filter_map(|row| row.split("href=\"").nth(1))
            {
                let href = link.split('"').next().unwrap_or_default().replace("&amp;", "&");
                assert_eq!(browser.get(&href).await.status, StatusCode::OK, "{role}: {href}");
            }
        }
    }
}

#[tokio::test]
async fn customers_and_strangers_search_nothing() {
    let world = world().await;
    let mut customer = world.portal.signed_in("ada").await;
    let answer = customer.get("/search?q=bobs-blog").await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert!(!answer.body.contains("svc_3"), "S1");
    let usage = customer.get("/usage").await;
    assert!(!usage.body.contains("action=\"/search\""), "no box for customers");
    let mut anonymous = world.portal.browser();
    assert_eq!(anonymous.get("/search?q=db").await.status, StatusCode::SEE_OTHER);
    let mut ops = world.portal.signed_in("ops").await;
    assert!(ops.get("/ops").await.body.contains("action=\"/search\""));
}

#[tokio::test]
async fn of_more_than_are_listed_only_the_first_are_said_to_be() {
    let world = world().await;
    let mut transaction = world.portal.state.db().begin_write().await.unwrap();
    for host in 0..31 {
        let target = Target::Prefix(format!("198.18.16.{host}/32").parse().unwrap());
        assign(&mut transaction, world.transfer, target, START_MS, None, NOW_MS)
            .await
            .unwrap();
    }
    transaction.commit().await.unwrap();
    let mut ops = world.portal.signed_in("ops").await;
    assert_eq!(found(&mut ops, "198.18.16.0/24").await.len(), 10);
    let answer = ops.get("/search?q=198.18.16.0/24").await;
    assert!(answer.body.contains("The first 10 found for"), "{}", answer.body);
    assert!(
        answer
            .body
            .contains("There are more services: choose a smaller network"),
        "{}",
        answer.body
    );
    // As many as fit are all of them.
    let answer = ops.get("/search?q=198.18.16.0/30").await;
    assert!(answer.body.contains(">4 found for"), "{}", answer.body);
    assert!(!answer.body.contains("There are more"), "{}", answer.body);
}
