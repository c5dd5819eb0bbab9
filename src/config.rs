//! The configuration: one TOML file, which flags and environment variables override.
//!
//! Every setting has a default, so that no file is needed. Unknown keys are errors that name the line: a misspelt key
//! must not silently leave a default in force.

mod advice;
mod example;
mod gateways;
mod portal;
mod secrets;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ::portal::auth::SessionLimits;
use activity::channel::MailConfig;
use activity::risk::Thresholds;
use analytics::counter_reconciliation::CounterReconciliationSettings;
use anyhow::{Context as _, bail};
use billing::collection_terms::Terms;
use billing::guard::ClockLimits;
use billing::payment::paypal::{self, Paypal, PaypalConfig};
use billing::payment::stripe::{self, Stripe, StripeConfig};
use billing::payment::trial::{self, TestGateway};
use billing::payment::{Gateways, PaymentGateway};
use billing::vat::VatRegister;
use billing::vat::vies::{self, Vies};
use collector::allow::AllowList;
use collector::config::CollectorConfig;
use ipnet::IpNet;
use schemas::db::Database;
use schemas::interfaces::KnownInterfaces;
use schemas::metering::{
    ACTIVE_TIMEOUT_S_MAX, ExporterConfig, LAYER2_OCTETS_MAX, MeterMode, MeteringConfig, SessionScope,
};
use schemas::usage::MeasureGuards;
use schemas::usage::{CORRECTION_REACH_DAYS, CORRECTION_REACH_DAYS_RANGE};
use serde::{Deserialize, Serialize};
use sqlx::Connection as _;
use tables::table::{RetentionConfig, Storage, StorageConfig};

pub(crate) use self::example::EXAMPLE;
pub(crate) use self::portal::PortalConfig;
use self::secrets::hidden;
pub(crate) use self::secrets::{DatabaseUrl, SecretsConfig};

/// A register that takes longer is not there.
const VIES_TIMEOUT_SECONDS_MAX: u64 = 120;
/// With a larger tolerance the truth check would find nothing.
const TRUTH_TOLERANCE_PERCENT_MAX: u32 = 90;

/// With a larger step a clock a year ahead would be believed.
const MAX_CLOCK_STEP_HOURS: u32 = 24 * 31;

/// Everything that can be configured.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Where journal, tables and the default database live.
    pub(crate) data_dir: PathBuf,
    /// `sqlite://…` or `postgres://…`; the data directory's own SQLite where absent.
    pub(crate) database: Option<DatabaseUrl>,
    pub(crate) secrets: SecretsConfig,
    /// Networks of ours beside the prefixes that services hold.
    #[serde(deserialize_with = "schemas::prefix::list")]
    pub(crate) own_networks: Vec<IpNet>,
    /// Where the files of the tables lie.
    pub(crate) storage: StorageConfig,
    /// Where backups go.
    pub(crate) backup: StorageConfig,
    /// How long and how much of each table is kept.
    pub(crate) retention: RetentionConfig,
    pub(crate) collector: CollectorConfig,
    pub(crate) metering: MeteringSettings,
    pub(crate) portal: PortalConfig,
    /// How long people stay signed in.
    pub(crate) sessions: SessionLimits,
    pub(crate) billing: BillingConfig,
    /// What customers are given to pay, and what happens when they do not.
    pub(crate) collection: Terms,
    /// From which size on an action waits for a second admin.
    pub(crate) approvals: Thresholds,
    /// How events are mailed.
    pub(crate) mail: MailConfig,
    pub(crate) webhooks: WebhooksConfig,
    pub(crate) payments: PaymentsConfig,
    pub(crate) vies: ViesConfig,
    #[serde(rename = "exporter")]
    pub(crate) exporters: Vec<ExporterConfig>,
    /// What the exporters say of their interfaces, as the data directory keeps it.
    #[serde(skip)]
    pub(crate) interfaces: Arc<KnownInterfaces>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct WebhooksConfig {
    /// Endpoints may stand in private networks and speak http.
    pub(crate) allow_private: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct BillingConfig {
    /// `serve` closes every period that has ended, once its last window is closed.
    pub(crate) close_automatically: bool,
    /// Usage of which less was measured waits for a person, in percent of its windows; 90 where absent, in rehearsals by a
    /// test clock 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) min_coverage_percent: Option<u32>,
    /// Usage that ends after the newest data waits for a person; so where absent, but for rehearsals by a test clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hold_beyond_measured: Option<bool>,
    /// A clock that moved further ahead since billing last looked stops billing, in hours.
    pub(crate) max_clock_step_hours: u32,
    /// How far back usage that was charged is corrected when its flows change.
    pub(crate) correction_reach_days: u32,
}

impl BillingConfig {
    /// What is held for a person, on a database that goes by a test clock or by the machine's.
    pub(crate) fn guards(&self, is_test_clock: bool) -> MeasureGuards {
        let usual = match is_test_clock {
            true => MeasureGuards::NONE,
            false => MeasureGuards::DEFAULT,
        };
        MeasureGuards {
            min_coverage_percent: self.min_coverage_percent.unwrap_or(usual.min_coverage_percent),
            holds_beyond_measured: self.hold_beyond_measured.unwrap_or(usual.holds_beyond_measured),
        }
    }

    /// How far the clock may move without anybody being asked.
    pub(crate) fn clock_limits(&self) -> ClockLimits {
        ClockLimits {
            ahead_ms: i64::from(self.max_clock_step_hours) * schemas::window::HOUR_MS,
        }
    }

    fn check(&self) -> anyhow::Result<()> {
        if let Some(percent) = self.min_coverage_percent.filter(|&percent| percent > 100) {
            bail!("billing.min_coverage_percent = {percent} is out of range: use 0 to 100; 0 holds nothing");
        }
        let hours = self.max_clock_step_hours;
        if !(1..=MAX_CLOCK_STEP_HOURS).contains(&hours) {
            bail!("billing.max_clock_step_hours = {hours} is out of range: use 1 to {MAX_CLOCK_STEP_HOURS}");
        }
        Ok(())
    }
}

/// Which gateways take payments; bank transfers are always recorded.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PaymentsConfig {
    pub(crate) stripe: Option<StripeSettings>,
    pub(crate) paypal: Option<PaypalSettings>,
    /// For trying out, without a live gateway beside it.
    pub(crate) test: Option<TestSettings>,
}

/// The test gateway has nothing to set: its section alone switches it on.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TestSettings {}

/// Whether customers' VAT numbers are asked for in the European Union's register.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ViesConfig {
    pub(crate) enabled: bool,
    /// Where VIES answers.
    #[serde(serialize_with = "secrets::url")]
    pub(crate) base_url: String,
    /// How long it may take.
    pub(crate) timeout_seconds: u64,
}

impl std::fmt::Debug for ViesConfig {
    /// Without a password in the address.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ViesConfig")
            .field("enabled", &self.enabled)
            .field("base_url", &schemas::db::without_password(&self.base_url))
            .finish_non_exhaustive()
    }
}

impl Default for ViesConfig {
    fn default() -> ViesConfig {
        ViesConfig {
            enabled: false,
            base_url: vies::BASE_URL.to_owned(),
            timeout_seconds: vies::TIMEOUT.as_secs(),
        }
    }
}

impl ViesConfig {
    fn validate(&self) -> anyhow::Result<()> {
        let url = &self.base_url;
        if !(url.starts_with("https://") || url.starts_with("http://")) {
            bail!("vies.base_url = {url:?} is no address: use one like {}", vies::BASE_URL);
        }
        if !(1..=VIES_TIMEOUT_SECONDS_MAX).contains(&self.timeout_seconds) {
            bail!(
                "vies.timeout_seconds = {} is out of range: use 1 to {VIES_TIMEOUT_SECONDS_MAX}",
                self.timeout_seconds
            );
        }
        Ok(())
    }

    /// The register; `None` where it is not switched on.
    pub(crate) fn register(&self) -> anyhow::Result<Option<Arc<dyn VatRegister>>> {
        if !self.enabled {
            return Ok(None);
        }
        let timeout = Duration::from_secs(self.timeout_seconds);
        let register = Vies::new(&self.base_url, timeout).context("[vies]")?;
        Ok(Some(Arc::new(register)))
    }
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PaypalSettings {
    pub(crate) client_id: String,
    #[serde(serialize_with = "hidden")]
    pub(crate) client_secret: String,
    /// The id of the webhook as PayPal shows it; without one, no webhook is believed.
    #[serde(default)]
    pub(crate) webhook_id: String,
    /// Where PayPal answers.
    #[serde(default = "paypal_base_url", serialize_with = "secrets::url")]
    pub(crate) base_url: String,
}

fn paypal_base_url() -> String {
    paypal::BASE_URL.to_owned()
}

impl std::fmt::Debug for PaypalSettings {
    /// Without the secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PaypalSettings")
            .field("base_url", &schemas::db::without_password(&self.base_url))
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StripeSettings {
    /// `sk_live_…`.
    #[serde(serialize_with = "hidden")]
    pub(crate) secret_key: String,
    /// Of the webhook endpoint, `whsec_…`; without one, no webhook is believed.
    #[serde(default, serialize_with = "hidden")]
    pub(crate) webhook_secret: String,
    /// Where Stripe answers.
    #[serde(default = "stripe_base_url", serialize_with = "secrets::url")]
    pub(crate) base_url: String,
}

fn stripe_base_url() -> String {
    stripe::BASE_URL.to_owned()
}

impl std::fmt::Debug for StripeSettings {
    /// Without the secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StripeSettings")
            .field("base_url", &schemas::db::without_password(&self.base_url))
            .finish_non_exhaustive()
    }
}

impl PaymentsConfig {
    fn check(&self) -> anyhow::Result<()> {
        if self.test.is_some() && (self.stripe.is_some() || self.paypal.is_some()) {
            bail!(
                "[payments.test] cannot be combined with a live gateway: remove it, or [payments.stripe] and [payments.paypal]"
            );
        }
        Ok(())
    }

    /// What to say of test cards on a portal that is published.
    fn public_test(&self, portal_url: &str) -> Option<String> {
        let is_public = self.test.is_some() && portal_url.starts_with("https://");
        is_public.then(|| {
            format!(
                "[payments.test] on {portal_url}: whoever signs in there pays every invoice with a test card, and no money \
                 comes; remove it unless this is a demo"
            )
        })
    }

    /// The gateways that are configured, on the books that they are used for.
    async fn gateways(&self, database: &Database, portal_url: &str) -> anyhow::Result<Gateways> {
        let mut gateways: Vec<Arc<dyn PaymentGateway>> = Vec::new();
        if let Some(settings) = &self.stripe {
            let mut config = StripeConfig::new(&settings.secret_key, &settings.webhook_secret);
            config.base_url.clone_from(&settings.base_url);
            gateways.push(Arc::new(Stripe::new(config).context("[payments.stripe]")?));
        }
        if let Some(settings) = &self.paypal {
            let mut config = PaypalConfig::new(&settings.client_id, &settings.client_secret, &settings.webhook_id);
            config.base_url.clone_from(&settings.base_url);
            gateways.push(Arc::new(Paypal::new(config).context("[payments.paypal]")?));
        }
        if self.test.is_some() {
            if let Some(warning) = self.public_test(portal_url) {
                tracing::warn!("{warning}");
            }
            gateways.push(Arc::new(TestGateway::new(database, portal_url)));
        }
        let gateways = Gateways::new(gateways);
        gateways.check(database).await.context("[payments]")?;
        Ok(gateways)
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct MeteringSettings {
    /// The truth check: how far flows may be from an interface's counter beside the sampling error, in percent.
    pub(crate) truth_tolerance_percent: u32,
}

impl Default for MeteringSettings {
    fn default() -> MeteringSettings {
        MeteringSettings {
            truth_tolerance_percent: analytics::counter_reconciliation::TOLERANCE_PERCENT,
        }
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            data_dir: PathBuf::from("ezscale-data"),
            database: None,
            secrets: SecretsConfig::default(),
            own_networks: Vec::new(),
            storage: StorageConfig::default(),
            backup: StorageConfig::default(),
            retention: RetentionConfig::default(),
            collector: CollectorConfig::default(),
            metering: MeteringSettings::default(),
            portal: PortalConfig::default(),
            sessions: SessionLimits::default(),
            billing: BillingConfig::default(),
            collection: Terms::default(),
            approvals: Thresholds::default(),
            mail: MailConfig::default(),
            webhooks: WebhooksConfig::default(),
            payments: PaymentsConfig::default(),
            vies: ViesConfig::default(),
            exporters: Vec::new(),
            interfaces: Arc::default(),
        }
    }
}

impl Default for BillingConfig {
    fn default() -> BillingConfig {
        BillingConfig {
            close_automatically: true,
            min_coverage_percent: None,
            hold_beyond_measured: None,
            max_clock_step_hours: 48,
            correction_reach_days: CORRECTION_REACH_DAYS,
        }
    }
}

impl Config {
    /// Reads and checks a file.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Config> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read configuration {}", path.display()))?;
        let config = Config::parse(&text).with_context(|| format!("configuration {}", path.display()))?;
        if config.has_secrets() {
            secrets::refuse_readable(path)?;
        }
        Ok(config)
    }

    /// Parses and checks a text.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Config> {
        let config: Config = toml::from_str(text).map_err(|error| secrets::parse_error(text, error))?;
        config.check()?;
        Ok(config)
    }

    /// Whether it holds what nobody else may read.
    fn has_secrets(&self) -> bool {
        let in_database = |url: &DatabaseUrl| schemas::db::without_password(url.reveal()) != url.reveal();
        // An address without a user is no secret.
        let smtp_url = self.mail.smtp_url.as_ref().map(|url| url.reveal());
        let in_smtp = |url: &str| schemas::db::without_password(url) != url;
        let in_snmp = |exporter: &ExporterConfig| {
            let snmp = exporter.snmp.as_ref();
            snmp.is_some_and(|snmp| snmp.community.is_some() || snmp.auth_password.is_some())
        };
        self.database.as_ref().is_some_and(in_database)
            || self.storage.secret_access_key.is_some()
            || self.backup.secret_access_key.is_some()
            || smtp_url.is_some_and(in_smtp)
            || !self.portal.metrics_token.is_empty()
            || self.payments.stripe.is_some()
            || self.payments.paypal.is_some()
            || self.exporters.iter().any(in_snmp)
    }

    /// What no type can rule out.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if let Some(url) = &self.database {
            Database::check_url(url.reveal())?;
        }
        self.collector.validate()?;
        self.storage.validate().context("[storage]")?;
        self.backup.validate().context("[backup]")?;
        self.retention.validate()?;
        self.mail.validate()?;
        self.sessions.validate()?;
        self.billing.check()?;
        self.payments.check()?;
        self.collection.validate().context("[collection]")?;
        self.approvals.validate().context("[approvals]")?;
        self.vies.validate()?;
        self.portal.check()?;
        let reach_days = self.billing.correction_reach_days;
        if !CORRECTION_REACH_DAYS_RANGE.contains(&reach_days) {
            let (least, most) = (CORRECTION_REACH_DAYS_RANGE.start(), CORRECTION_REACH_DAYS_RANGE.end());
            bail!("billing.correction_reach_days = {reach_days} is out of range: use {least} to {most}");
        }
        let tolerance_percent = self.metering.truth_tolerance_percent;
        if tolerance_percent > TRUTH_TOLERANCE_PERCENT_MAX {
            bail!(
                "metering.truth_tolerance_percent = {tolerance_percent} is out of range: use 0 to {TRUTH_TOLERANCE_PERCENT_MAX}"
            );
        }
        let mut seen = std::collections::HashSet::new();
        for exporter in &self.exporters {
            let address = exporter.address;
            if exporter.port == Some(0) {
                bail!("exporter {address}: port = 0 is no UDP port; leave it out where the port does not matter");
            }
            if !seen.insert((address, exporter.port)) {
                match exporter.port {
                    None => bail!("exporter {address} is listed twice: keep one [[exporter]] section for it"),
                    Some(port) => bail!(
                        "exporter {address} with port {port} is listed twice: keep one [[exporter]] section for it"
                    ),
                }
            }
            if exporter.meter == MeterMode::Boundary && exporter.names_no_external_interface() {
                bail!(
                    "exporter {address} meters by boundary but names no external_interfaces: \
                     list the SNMP indexes of its uplinks, give external_interfaces_matching an expression for their \
                     descriptions, or set meter = \"addresses\" or \"off\""
                );
            }
            if let Some(snmp) = &exporter.snmp {
                snmp.validate().with_context(|| format!("exporter {address}"))?;
            }
            for rate in [exporter.sampling_rate, exporter.default_sampling_rate]
                .into_iter()
                .flatten()
            {
                if rate == 0 {
                    bail!("exporter {address}: a sampling rate of 0 is not a rate; 1 means unsampled");
                }
            }
            if let Some(seconds) = exporter.active_timeout_s
                && !(1..=ACTIVE_TIMEOUT_S_MAX).contains(&seconds)
            {
                bail!(
                    "exporter {address}: active_timeout_s = {seconds} is out of range: use 1 to {ACTIVE_TIMEOUT_S_MAX}, as set on \
                     the router, or leave the key out to go by what it announces or shows"
                );
            }
            if exporter.layer2_octets > LAYER2_OCTETS_MAX {
                bail!(
                    "exporter {address}: layer2_octets = {} is more than a frame has: use 14 for Ethernet, 18 with a VLAN tag, \
                     at most {LAYER2_OCTETS_MAX}",
                    exporter.layer2_octets
                );
            }
        }
        Ok(())
    }

    /// What the truth check depends on.
    pub(crate) fn counter_reconciliation(&self) -> CounterReconciliationSettings {
        CounterReconciliationSettings {
            metering: Arc::new(self.metering()),
            tolerance_percent: self.metering.truth_tolerance_percent,
        }
    }

    pub(crate) fn metering(&self) -> MeteringConfig {
        MeteringConfig {
            own_networks: self.own_networks.clone(),
            exporters: self.exporters.clone(),
            decoding: self.collector.decoding(),
            correction_reach_days: Some(self.billing.correction_reach_days),
            interfaces: self.interfaces.clone(),
            corrections: Vec::new(),
        }
    }

    /// How far back what was charged is corrected, and what keeps it from reaching that far.
    pub(crate) fn correcting(&self) -> Vec<String> {
        let reach_days = self.billing.correction_reach_days;
        let mut lines = vec![format!(
            "usage that was charged is corrected when its flows change, for periods that ended in the last {reach_days} days"
        )];
        for (table, what) in [
            ("flows", "late flows of older times are not counted"),
            ("usage_5m", "older periods stay as they were charged"),
            ("collection_5m", "older periods stay as they were charged"),
        ] {
            let max_age_days = self.retention.limits(table).max_age_days;
            if let Some(days) = max_age_days.filter(|&days| days < u64::from(reach_days)) {
                lines.push(format!(
                    "retention.{table}.max_age_days = {days} ends corrections before: {what}"
                ));
            }
        }
        lines
    }

    /// The data directory and where its tables' files lie. Open it once per process: it has threads of its own for S3.
    pub(crate) fn open_storage(&self) -> anyhow::Result<Storage> {
        Ok(Storage::open(&self.data_dir, &self.storage)?)
    }

    /// Whose datagrams are read and what they count where nobody says it, in sentences.
    pub(crate) fn reading(&self) -> Vec<String> {
        let collector = &self.collector;
        let allowed = &collector.allowed_exporters;
        let who = if allowed.is_empty() {
            "datagrams are read from every source".to_owned()
        } else {
            let list: Vec<String> = allowed.iter().map(ToString::to_string).collect();
            format!("datagrams are read from {} only", list.join(", "))
        };
        let rate = match collector.default_sampling_rate {
            Some(rate) => format!("an exporter that says no sampling rate counts 1 packet in {rate}"),
            None => "an exporter that says no sampling rate and has no default is stored and not billed".to_owned(),
        };
        let word = if collector.v5_sampling_mode_bits {
            "NetFlow v5: 14 bits of the sampling word are the interval, the upper two a mode"
        } else {
            "NetFlow v5: all 16 bits of the sampling word are the interval"
        };
        let mut lines = vec![who, rate, word.to_owned()];
        lines.extend(advice::without_effect(self));
        lines.extend(self.payments.public_test(&self.portal_url()));
        let allowed = AllowList::new(allowed);
        for exporter in &self.exporters {
            if !allowed.allows(exporter.address.first()) {
                lines.push(format!(
                    "exporter {} is outside collector.allowed_exporters: it is read only if it sends from an address that is \
                     listed, as an sFlow agent may",
                    exporter.address
                ));
            }
            if let Some(mode_bits) = exporter.v5_sampling_mode_bits
                && mode_bits != collector.v5_sampling_mode_bits
            {
                let bits = if mode_bits { 14 } else { 16 };
                lines.push(format!(
                    "NetFlow v5 of {}: {bits} bits are the interval",
                    exporter.address
                ));
            }
            if exporter.sessions == SessionScope::Address {
                lines.push(format!(
                    "exporter {}: all UDP ports are one session, as of one router",
                    exporter.address
                ));
            }
        }
        lines
    }

    /// What of `new` a running process does not take over, in sentences.
    pub(crate) fn changes_that_need_a_restart(&self, new: &Config) -> Vec<String> {
        advice::changes_that_need_a_restart(self, new)
    }

    /// Why the books refuse the test gateway that is configured; `None` where they do not, or none can be read yet.
    pub(crate) async fn refused_test_gateway(&self) -> Option<String> {
        self.payments.test.as_ref()?;
        let mut url = self.database_url();
        if url.starts_with("sqlite:") {
            // To check changes nothing: the file is neither made nor migrated.
            let file = url.split('?').next().unwrap_or(&url);
            url = format!("{file}?mode=ro");
        }
        sqlx::any::install_default_drivers();
        let mut connection = sqlx::AnyConnection::connect(&url).await.ok()?;
        let refused = trial::real_books(&mut connection).await.ok()?;
        refused.map(|why| format!("[payments.test] cannot be used with live books: {why}"))
    }

    /// The gateways that are configured.
    pub(crate) async fn gateways(&self, database: &Database) -> anyhow::Result<Gateways> {
        self.payments.gateways(database, &self.portal_url()).await
    }

    /// Where people reach the portal.
    pub(crate) fn portal_url(&self) -> String {
        match &self.portal.public_url {
            Some(url) => url.clone(),
            None => format!("http://{}", self.portal.http),
        }
    }

    pub(crate) fn database_url(&self) -> String {
        match &self.database {
            Some(url) => url.reveal().to_owned(),
            None => Database::default_url(&self.data_dir),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_the_default() {
        let config = Config::parse("").unwrap();
        assert_eq!(
            toml::to_string(&config).unwrap(),
            toml::to_string(&Config::default()).unwrap()
        );
    }

    #[test]
    fn a_check_says_how_far_back_charged_usage_is_corrected() {
        let open = Config::parse("").unwrap();
        assert_eq!(open.correcting().len(), 1);
        assert!(open.correcting()[0].contains("the last 400 days"));
        assert_eq!(open.metering().correction_reach_days, Some(400));
        let text = "[billing]\ncorrection_reach_days = 90\n[retention.flows]\nmax_age_days = 60\n[retention.usage_5m]\nmax_age_days = 91";
        let config = Config::parse(text).unwrap();
        assert_eq!(config.metering().correction_reach_days, Some(90));
        let lines = config.correcting();
        assert!(
            lines.len() == 2 && lines[0].contains("90 days") && lines[1].contains("retention.flows"),
            "{lines:?}"
        );
        for (days, is_right) in [(30, false), (31, true), (3653, true), (3654, false)] {
            let parsed = Config::parse(&format!("[billing]\ncorrection_reach_days = {days}"));
            match parsed {
                Ok(_) => assert!(is_right, "{days}"),
                Err(error) => assert!(!is_right && error.to_string().contains("use 31 to 3653"), "{error}"),
            }
        }
    }

    #[test]
    fn a_check_says_whose_datagrams_are_read_and_how() {
        let open = Config::parse("").unwrap().reading();
        assert_eq!(open.len(), 3);
        assert!(open[0].contains("every source") && open[1].contains("not billed") && open[2].contains("14 bits"));
        let text = "[collector]\nallowed_exporters = ['192.0.2.0/24']\ndefault_sampling_rate = 512\n\
                    v5_sampling_mode_bits = false\n[[exporter]]\naddress = '198.51.100.1'\nv5_sampling_mode_bits = true\nsessions = 'address'";
        let config = Config::parse(text).unwrap();
        let closed = config.reading();
        assert!(closed[0].contains("192.0.2.0/24 only") && closed[1].contains("512") && closed[2].contains("all 16"));
        assert!(closed[3].contains("198.51.100.1 is outside") && closed[4].contains("198.51.100.1: 14 bits"));
        assert!(closed[5].contains("198.51.100.1: all UDP ports"));
        let sampling = collector::sampling::SamplingConfig::from(&config.metering());
        assert!(sampling.of("198.51.100.1".parse().unwrap()).joins_ports);
        assert!(!sampling.of("198.51.100.2".parse().unwrap()).joins_ports);
        let decoding = config.metering().decoding;
        assert_eq!(
            (decoding.default_sampling_rate, decoding.v5_sampling_mode_bits),
            (Some(512), false)
        );
        assert_eq!(decoding.allowed_exporters.len(), 1);
    }

    #[test]
    fn a_mail_server_without_a_password_is_no_secret() {
        for (url, expected) in [
            ("smtp://127.0.0.1:8105", false),
            ("smtps://mx.example.net", false),
            ("smtps://name:password@mx.example.net", true),
        ] {
            let config = Config::parse(&format!("[mail]\nsmtp_url = '{url}'")).unwrap();
            assert_eq!(config.has_secrets(), expected, "{url}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            ("data_dri = 'x'", "data_dri"),
            (
                "database = 'mysql://ez:hush@db/ez'",
                "must start with sqlite:// or postgres://",
            ),
            ("database = 'postgres://db:port/ez'", "is not understood"),
            (
                "own_networks = ['10.0.0.0/33']",
                "\"10.0.0.0/33\": the prefix length of an IPv4 address is 0 to 32",
            ),
            ("own_networks = ['10.0.0.0']", "one address as 192.0.2.1/32"),
            (
                "[collector]\nallowed_exporters = ['10.0.0.0/33']",
                "the prefix length of an IPv4 address is 0 to 32",
            ),
            ("[portal]\ntrusted_proxies = ['::1/129']", "an IPv6 address is 0 to 128"),
            (
                "[portal]\nmetrics_allow = ['localhost/8']",
                "\"localhost\" is no IP address",
            ),
            ("[collector]\nsegment_seconds = 'ten'", "line 2"),
            (
                "[[exporter]]\naddress = '192.0.2.1'\n[[exporter]]\naddress = '192.0.2.1'",
                "listed twice",
            ),
            (
                "[[exporter]]\naddress = '192.0.2.1'\nmeter = 'boundary'",
                "external_interfaces",
            ),
            ("[[exporter]]\naddress = '192.0.2.1'\nsampling_rate = 0", "not a rate"),
            ("[metering]\ntruth_tolerance_percent = 91", "use 0 to 90"),
            (
                "[[exporter]]\naddress = '192.0.2.1'\ninterface_names = { ae0 = '513' }",
                "\"ae0\" is no SNMP index",
            ),
            ("[storage]\nurl = 'ftp://x'", "s3://bucket/prefix"),
            ("[retention]\nflows = { max_age_days = 7 }", "allow_unbilled_deletion"),
            ("[retention]\nflow = { max_age_days = 70 }", "flows, usage_5m"),
            ("[retention]\nflows = { max_age = 70 }", "max_age"),
            (
                "[[exporter]]\naddress = '192.0.2.1'\nactive_timeout_s = 0",
                "active_timeout_s = 0 is out of range",
            ),
            (
                "[[exporter]]\naddress = '192.0.2.1'\nlayer2_octets = 1400",
                "use 14 for Ethernet",
            ),
            ("[collector]\ndefault_sampling_rate = 0", "not a rate"),
            (
                "[collection]\nretry_days = [5, 3]",
                "[collection]: retry_days and suspend_day: the days of charges ascend",
            ),
            (
                "[collection]\nterminate_day = 10",
                "after they were suspended on day 14",
            ),
            ("[collection]\nsuspend_days = 10", "suspend_days"),
            (
                "[approvals]\nrefund_over_minor = -1",
                "[approvals]: refund_over_minor = -1 is out of range: use 0 to 1000000000000",
            ),
            ("[approvals]\nrefund_over = 5", "refund_over"),
            ("[mail]\nsmtp_url = 'mx.example.net'", "smtps://name:password@host"),
            ("[mail]\nfrom = 'nobody'", "Example Hosting"),
            (
                "[sessions]\nstaff_idle_minutes = 0",
                "sessions.staff_idle_minutes = 0 is out of range: use 1 to 1440",
            ),
            ("[sessions]\nidle = 5", "idle"),
            (
                "[payments.test]\n[payments.stripe]\nsecret_key = 'sk'",
                "cannot be combined with a live gateway",
            ),
            ("[portal]\npublic_url = 'portal.example.net'", "https://portal"),
            (
                "[collector]\nallowed_exporters = ['192.0.2.9/24']",
                "write 192.0.2.0/24",
            ),
        ] {
            let error = format!("{:#}", Config::parse(text).unwrap_err());
            assert!(error.contains(expected), "{text:?} gave {error:?}");
        }
    }
}
