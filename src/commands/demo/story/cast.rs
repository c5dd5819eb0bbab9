//! Who the story is about: customers that pay, pay late, pay in parts, or do not pay.

use billing::payment::trial::Card;

use super::STORY_DAYS;

/// How somebody of the story pays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PaymentHabit {
    By(Card),
    /// By transfer, or not at all.
    Nothing,
}

pub(super) struct Character {
    pub(super) name: &'static str,
    pub(super) email: &'static str,
    pub(super) currency: &'static str,
    pub(super) time_zone: &'static str,
    pub(super) country: &'static str,
    pub(super) place: [&'static str; 3],
    pub(super) vat_id: &'static str,
    pub(super) exempt: &'static str,
    pub(super) service: &'static str,
    /// Days ago.
    pub(super) ordered: i64,
    pub(super) pays: PaymentHabit,
}

pub(super) const BUSINESS: usize = 0;
pub(super) const LATE: usize = 1;
pub(super) const COLLEGE: usize = 2;
pub(super) const BROKE: usize = 3;
pub(super) const FORGETFUL: usize = 4;
pub(super) const GONE: usize = 5;
pub(super) const PRIVATE: usize = 6;

pub(super) const CHARACTERS: [Character; 8] = [
    Character {
        name: "Alpenblick Software GmbH",
        email: "buchhaltung@alpenblick.example",
        currency: "EUR",
        time_zone: "Europe/Vienna",
        country: "AT",
        place: ["Lindengasse 12", "1070", "Wien"],
        vat_id: "ATU13585627",
        exempt: "",
        service: "alpenblick-shop",
        ordered: STORY_DAYS,
        pays: PaymentHabit::By(Card::Accepted),
    },
    Character {
        name: "Mia Meyer",
        email: "mia@meyer.example",
        currency: "EUR",
        time_zone: "Europe/Berlin",
        country: "DE",
        place: ["Kirchweg 3", "20253", "Hamburg"],
        vat_id: "",
        exempt: "",
        service: "mia-blog",
        ordered: 50,
        pays: PaymentHabit::By(Card::Declined),
    },
    Character {
        name: "Oakfield Community College",
        email: "it@oakfield.example",
        currency: "USD",
        time_zone: "America/Chicago",
        country: "US",
        place: ["400 College Ave", "50010", "Ames"],
        vat_id: "",
        exempt: "public school, certificate 4711",
        service: "oakfield-library",
        ordered: 55,
        pays: PaymentHabit::Nothing,
    },
    Character {
        name: "Bruna Juegos SL",
        email: "hola@bruna.example",
        currency: "EUR",
        time_zone: "Europe/Madrid",
        country: "ES",
        place: ["Calle Mayor 8", "28013", "Madrid"],
        vat_id: "",
        exempt: "",
        service: "bruna-arena",
        ordered: 32,
        pays: PaymentHabit::By(Card::NoFunds),
    },
    Character {
        name: "Ravi Textiles",
        email: "accounts@ravi.example",
        currency: "USD",
        time_zone: "Asia/Kolkata",
        country: "IN",
        place: ["14 MG Road", "560001", "Bengaluru"],
        vat_id: "",
        exempt: "",
        service: "ravi-catalogue",
        ordered: 18,
        pays: PaymentHabit::Nothing,
    },
    Character {
        name: "Ghostwriter Ltd",
        email: "post@ghostwriter.example",
        currency: "GBP",
        time_zone: "Europe/London",
        country: "GB",
        place: ["9 Mill Lane", "LS1 4AP", "Leeds"],
        vat_id: "",
        exempt: "",
        service: "ghost-press",
        ordered: 70,
        pays: PaymentHabit::Nothing,
    },
    Character {
        name: "Jonas Klein",
        email: "jonas@klein.example",
        currency: "EUR",
        time_zone: "Europe/Berlin",
        country: "DE",
        place: ["Am Markt 1", "50667", "Köln"],
        vat_id: "",
        exempt: "",
        service: "jonas-home",
        ordered: 0,
        pays: PaymentHabit::By(Card::Confirms),
    },
    Character {
        name: "Lucia Bianchi",
        email: "lucia@bianchi.example",
        currency: "EUR",
        time_zone: "Europe/Rome",
        country: "IT",
        place: ["Via Roma 5", "50123", "Firenze"],
        vat_id: "",
        exempt: "",
        service: "lucia-foto",
        ordered: 3,
        pays: PaymentHabit::Nothing,
    },
];
