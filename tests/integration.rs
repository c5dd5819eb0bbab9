//! The end-to-end tests: the built program against real exporters, databases, mail servers and a browser. They are one binary,
//! so that what they share is compiled and linked once; a file here is a module of it.
//!
//! ```text
//! cargo nextest run -p ezscale -E 'test(/^kill::/)'      the tests of one file
//! ```

mod accessibility;
mod acts;
mod architecture;
mod arrows;
mod backup;
mod bans;
mod command_line;
mod conservation;
mod constant_rate;
mod correction;
mod crash;
mod db_commands;
mod demo;
mod dependencies;
mod events;
mod exporters;
mod faults;
mod finance;
mod flood;
mod jobs;
mod kill;
mod localstripe;
mod open_files;
mod payments;
mod proxy;
mod recovery;
mod rehearsal;
mod reload;
mod replay;
mod risk;
mod sbom;
mod secrets;
mod service;
mod sign_in;
mod sign_in_attacks;
mod snmp;
mod storage;
mod support;
mod switch;
mod taxes;
mod truth;
mod upgrade;
