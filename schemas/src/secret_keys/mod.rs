//! The keys under which a database's secrets are sealed ([`crate::secret`]): opened when a process starts, replaced, given up when
//! they are lost.

mod rotate;
mod unlock;

pub use rotate::{Discarded, Rotated, discard, rotate};
pub use unlock::{Unlocked, unlock};

#[cfg(test)]
mod tests;
