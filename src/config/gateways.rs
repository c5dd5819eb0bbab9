//! What of the configuration says where payments go: a change of it is of high risk (F-60), and seen when `serve` starts.

use std::collections::BTreeMap;

use activity::risk::fingerprint::Value;

use super::PaymentsConfig;

impl PaymentsConfig {
    /// The settings of the gateways by name; keys are secrets, of which a hash is kept.
    pub(crate) fn settings(&self) -> BTreeMap<String, Value> {
        let mut settings = BTreeMap::new();
        let mut set = |name: &str, value: Value| settings.insert(name.to_owned(), value);
        let plain = |text: &str| Value::Plain(text.to_owned());
        let secret = |text: &str| Value::Secret(text.to_owned());
        // An address may hold a password.
        let address = |url: &str| match schemas::db::without_password(url) == url {
            true => plain(url),
            false => secret(url),
        };
        if let Some(stripe) = &self.stripe {
            set("stripe.secret_key", secret(&stripe.secret_key));
            set("stripe.webhook_secret", secret(&stripe.webhook_secret));
            set("stripe.base_url", address(&stripe.base_url));
        }
        if let Some(paypal) = &self.paypal {
            set("paypal.client_id", plain(&paypal.client_id));
            set("paypal.client_secret", secret(&paypal.client_secret));
            set("paypal.webhook_id", plain(&paypal.webhook_id));
            set("paypal.base_url", address(&paypal.base_url));
        }
        if self.test.is_some() {
            set("test", plain("on"));
        }
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    #[test]
    fn f60_every_setting_of_a_gateway_is_looked_at_and_no_key_is_plain() {
        let config = Config::parse(
            "[payments.stripe]\nsecret_key = 'PLANTED'\nwebhook_secret = 'PLANTED'\nbase_url = 'https://u:PLANTED@s.example'\n\
             [payments.paypal]\nclient_id = 'id'\nclient_secret = 'PLANTED'\nwebhook_id = 'w'\n",
        )
        .unwrap();
        let settings = config.payments.settings();
        // As many as the file can say.
        let shown = toml::to_string(&config.payments).unwrap();
        assert_eq!(
            settings.len(),
            shown.lines().filter(|line| line.contains(" = ")).count()
        );
        assert!(!format!("{settings:?}").contains("PLANTED"), "{settings:?}");
        assert_eq!(settings["paypal.client_id"], Value::Plain("id".to_owned()));
        assert_eq!(Config::parse("").unwrap().payments.settings(), BTreeMap::new());
    }
}
