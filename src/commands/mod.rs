//! One file per command.

pub(crate) mod audit;
pub(crate) mod check;
pub(crate) mod clock;
pub(crate) mod collect;
pub(crate) mod config;
pub(crate) mod customer;
pub(crate) mod demo;
pub(crate) mod entity;
pub(crate) mod event;
pub(crate) mod invoice;
pub(crate) mod ledger;
pub(crate) mod payment;
pub(crate) mod plan;
pub(crate) mod query;
pub(crate) mod replay;
pub(crate) mod serve;
pub(crate) mod service;
pub(crate) mod simulate;
pub(crate) mod storage;
pub(crate) mod subscription;
pub(crate) mod tax;
pub(crate) mod usage;
pub(crate) mod user;
pub(crate) mod webhook;
