//! One file per command.

pub mod collect;
pub mod config;
pub mod customer;
pub mod demo;
pub mod invoice;
pub mod plan;
pub mod query;
pub mod replay;
pub mod serve;
pub mod service;
pub mod simulate;
pub mod usage;
pub mod user;
