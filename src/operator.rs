//! Who acts on the command line: the account of the operating system that the program runs as.

use activity::act::By;
use nix::unistd::{User, geteuid};

/// Set by sudo to who called it.
const CALLER: &str = "SUDO_USER";

/// `os:` and the name of the effective user, or the number where it has no name. Beside it, whom sudo says it acts for: whoever
/// is root can set that to anything, so it is a claim and proves nothing.
pub(crate) fn by() -> By {
    let uid = geteuid();
    let account = User::from_uid(uid).ok().flatten().map(|user| user.name);
    let account = account.unwrap_or_else(|| uid.to_string());
    let caller = std::env::var(CALLER).ok();
    let claims = caller.as_deref().filter(|name| !name.is_empty() && *name != account);
    By::operator(&account, claims)
}
