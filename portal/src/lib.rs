//! Numbers and money to people: sign-in, pages, and the JSON API beneath the charts.
//!
//! * [`AppState`] holds what every handler needs; [`serve`] runs the server on a bound listener until told to stop.
//! * [`auth`]: passwords, sessions, roles, and the extractors that guard every route (S1).
//! * Pages are rendered on the server and work without JavaScript; charts draw themselves from the JSON API.
//!
//! What the state is made of, the core that stands on the state, then the two that stand on the core, which do not know each
//! other; the table of endpoints and the server put them together. No modules stand on each other in a circle:
//!
//! ```text
//! error, client, listen,   ◀── state ◀── auth, customer, overview, ◀── api   ◀── endpoints ◀── server
//! admission, sign_in, …                  exporters, …              ◀── pages ◀──
//! ```
//!
//! Architecture invariant: the portal never reads the journal and never writes a stored table; flows and usage come from
//! `analytics`, money from `billing`.

mod action;
#[cfg(test)]
mod acts_tests;
mod admission;
mod api;
mod assets;
pub mod auth;
mod body;
mod client;
mod customer;
mod documents;
mod endpoints;
mod error;
pub mod error_table;
mod exporters;
mod first_steps;
mod format;
mod health;
mod hooks;
mod http_metrics;
#[cfg(test)]
mod layer_tests;
mod links;
mod listen;
#[cfg(test)]
mod matrix_tests;
mod metrics;
mod offers;
mod once;
mod outcome;
mod overview;
mod pages;
mod path;
mod query;
mod range;
mod readiness;
mod refusal;
#[cfg(test)]
mod risk_tests;
mod security;
mod series;
mod server;
mod shell;
mod sign_in;
mod state;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod words;

pub use auth::{NewUser, Role, UserError, create_user};
pub use client::{ForwardedHeader, Proxies};
pub use listen::{MAX_CONNECTIONS, MAX_CONNECTIONS_PER_CLIENT};
pub use server::{router, serve};
pub use state::{AppState, HttpSettings, MetricsAccess, Options};
