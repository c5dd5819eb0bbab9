//! What commands are run on: a data folder with a configuration, files that they read, and its database.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use activity::audit::chain;
use activity::audit::{self, AuditFilter, AuditRecord};
use billing::payment::method;
use billing::payment::trial::{self, Card, TestGateway};
use jiff::Timestamp;
use schemas::db::Database;
use schemas::ids::CustomerId;

use crate::correction::netflow_v5;
use crate::support::clock;
use crate::support::ezscale::DataDir;
use crate::support::pcap::PcapWriter;

/// A data folder, what commands on it are told, and its database.
pub(crate) struct World {
    pub(super) data: DataDir,
    folder: tempfile::TempDir,
    pub(super) runtime: tokio::runtime::Runtime,
    pub(super) database: Database,
}

impl World {
    pub(crate) fn new() -> World {
        World::on(DataDir::made())
    }

    /// Of which the test gateway stands beside what is booked in other ways.
    pub(crate) fn with_test_books() -> World {
        let data = DataDir::new();
        data.run(&["init", "--test-books"]);
        World::on(data)
    }

    fn on(data: DataDir) -> World {
        let config = data.path().join("ezscale.toml");
        // Nobody answers at port 9.
        let text = "[webhooks]\nallow_private = true\n[payments.test]\n[vies]\nenabled = true\n\
                    base_url = 'http://127.0.0.1:9'\ntimeout_seconds = 1\n\
                    [mail]\nsmtp_url = 'smtp://127.0.0.1:9?tls=none'\nfrom = 'Ada <ada@example.net>'\n";
        std::fs::write(&config, text).expect("the data folder is writable");
        std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o600)).expect("it is the test's own");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime can be made");
        let url = Database::default_url(&data.path());
        let world = World {
            folder: tempfile::tempdir().expect("a temporary directory can be made"),
            database: runtime.block_on(Database::open(&url)).expect("it is there"),
            runtime,
            data,
        };
        let write = |name: &str, text: &str| std::fs::write(world.place(name), text).expect("it is writable");
        write("services", "name,customer\nweb2,cus_1\nweb3,cus_1\n");
        write(
            "assignments",
            "service,prefix\nsvc_2,192.0.2.16/28\nsvc_3,192.0.2.32/28\n",
        );
        let at = day(-2)
            .checked_add(jiff::SignedDuration::from_mins(10))
            .expect("it is in this century");
        let mut capture = PcapWriter::create(world.place("capture").as_ref());
        let from = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 1), 40_000);
        let to = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 200), 2055);
        let flow = netflow_v5(at, 0, 100, Ipv4Addr::new(192, 0, 2, 17), 1_000_000);
        capture.udp(at, from, to, &flow);
        capture.finish();
        world
    }

    pub(crate) fn place(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// A command's words, or a subject.
    pub(crate) fn words(&self, text: &str) -> Vec<String> {
        let date = |at: Timestamp| at.strftime("%Y-%m-%d").to_string();
        text.split(' ')
            .map(|word| match word {
                "SERVICES" | "ASSIGNMENTS" | "BACKUPS" | "CAPTURE" => self.place(&word.to_lowercase()),
                "LATER" => date(day(30)),
                "DAY" => date(day(-2)),
                "NEXT" => date(day(-1)),
                // The transfer that was recorded for the customer.
                "PAID" => {
                    let sql = "SELECT CAST(max(id) AS BIGINT) FROM payments WHERE gateway = 'manual'";
                    let paid = sqlx::query_scalar::<_, i64>(sql).fetch_one(self.database.pool());
                    format!("pay_{}", self.runtime.block_on(paid).expect("there is one"))
                }
                word => word.to_owned(),
            })
            .collect()
    }

    /// A number from the database.
    pub(crate) fn number(&self, query: &'static str) -> i64 {
        let found = sqlx::query_scalar::<_, i64>(query).fetch_one(self.database.pool());
        self.runtime.block_on(found).expect("the query is right")
    }

    /// Something that no command does.
    pub(crate) fn sql(&self, statement: &'static str) {
        let done = sqlx::query(statement).execute(self.database.pool());
        self.runtime.block_on(done).expect("the statement is right");
    }

    /// The entries after one, oldest first.
    pub(crate) fn after(&self, known: i64) -> Vec<AuditRecord> {
        let listed = audit::list(self.database.pool(), AuditFilter::default(), audit::MAX_PAGE);
        let mut entries = self.runtime.block_on(listed).expect("the log is read");
        entries.retain(|entry| entry.id.0 > known);
        entries.reverse();
        entries
    }

    pub(crate) fn assert_chain_holds(&self, after: &str) {
        let verified = self
            .runtime
            .block_on(chain::verify(&self.database))
            .expect("it is read");
        assert_eq!(verified.broken, None, "after `{after}`");
    }

    /// Runs a command, which may read a password.
    pub(crate) fn run(&self, words: &[String]) -> std::process::Output {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        with_password(&mut self.data.command(&words))
    }
}

pub(super) fn with_password(command: &mut Command) -> std::process::Output {
    let piped = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = piped.spawn().expect("the binary runs");
    // Most do not read it, and may have ended.
    let _ = writeln!(child.stdin.take().expect("it is piped"), "orchid kettle winter");
    child.wait_with_output().expect("it ends")
}

/// The start of a day in UTC, so many days from today.
pub(super) fn day(days: i64) -> Timestamp {
    let today_ms = clock::began_ms().div_euclid(86_400_000) * 86_400_000;
    Timestamp::from_millisecond(today_ms + days * 86_400_000).expect("it is in this century")
}

/// As a customer saves a card on the test gateway's page.
pub(super) fn save_card(world: &World) {
    let saved = async {
        let gateway = TestGateway::new(&world.database, "http://portal.example");
        let (database, customer) = (&world.database, CustomerId(1));
        let started = method::start_setup(database, &gateway, customer, "/payment-methods/return", "/").await?;
        trial::choose(database.pool(), &started.reference, Card::Accepted).await?;
        method::finish_setup(database, &gateway, customer, &started.reference, clock::began_ms()).await
    };
    world.runtime.block_on(saved).expect("a card is saved");
}

/// The account that the tests run as, as the audit log names it.
pub(crate) fn account() -> String {
    let output = Command::new("id").arg("-un").output().expect("id is there");
    format!("os:{}", String::from_utf8_lossy(&output.stdout).trim())
}
