//! The demonstration's companies, plans and networks: lists only.

use super::parts::{FleetBilling, FleetPlan, ServiceKind};

/// A country's defaults for a customer.
pub(super) struct Country {
    pub(super) code: &'static str,
    pub(super) currency: &'static str,
    pub(super) time_zone: &'static str,
    pub(super) domain: &'static str,
}

pub(super) const COUNTRIES: [Country; 12] = [
    country("US", "USD", "America/New_York", "com"),
    country("US", "USD", "America/Chicago", "com"),
    country("US", "USD", "America/Los_Angeles", "com"),
    country("CA", "USD", "America/Toronto", "ca"),
    country("GB", "GBP", "Europe/London", "co.uk"),
    country("DE", "EUR", "Europe/Berlin", "de"),
    country("FR", "EUR", "Europe/Paris", "fr"),
    country("NL", "EUR", "Europe/Amsterdam", "nl"),
    country("ES", "EUR", "Europe/Madrid", "es"),
    country("SG", "USD", "Asia/Singapore", "sg"),
    country("IN", "USD", "Asia/Kolkata", "in"),
    country("AU", "USD", "Australia/Sydney", "com.au"),
];

const fn country(code: &'static str, currency: &'static str, time_zone: &'static str, domain: &'static str) -> Country {
    Country {
        code,
        currency,
        time_zone,
        domain,
    }
}

/// (company, index of its country)
pub(super) const COMPANIES: [(&str, usize); 60] = [
    ("Harborline Logistics", 0),
    ("Blue Heron Media", 0),
    ("Ironbridge Games", 2),
    ("Kestrel Analytics", 0),
    ("Nordlicht Software", 5),
    ("Atelier Mercier", 6),
    ("Thames Valley Hosting", 4),
    ("Lion City Payments", 9),
    ("Redwood Learning", 2),
    ("Vanderhoek Imaging", 7),
    ("Copperfield Legal", 4),
    ("Sunda Streaming", 9),
    ("Prairie Data Works", 1),
    ("Elbe Robotik", 5),
    ("Casa Verde Tours", 8),
    ("Maple Ridge Clinics", 3),
    ("Sable Studio", 2),
    ("Hanuman Travels", 10),
    ("Southern Cross Gaming", 11),
    ("Quillpoint Press", 0),
    ("Lumen Optical", 1),
    ("Rhein Main Finanz", 5),
    ("Petit Pixel", 6),
    ("Ashdown Estates", 4),
    ("Orchid Bay Retail", 9),
    ("Summit Trail Outfitters", 1),
    ("Polder Energie", 7),
    ("Sevilla Sonora", 8),
    ("Great Lakes Freight", 3),
    ("Wattle Creek Wines", 11),
    ("Monsoon Mobile", 10),
    ("Foxglove Health", 4),
    ("Granite Peak Robotics", 2),
    ("Alster Verlag", 5),
    ("Lyonnaise Cloud", 6),
    ("Tidewater Marine", 0),
    ("Bricklane Apps", 4),
    ("Keppel Cargo", 9),
    ("Deccan Metrics", 10),
    ("Zuiderzee Sport", 7),
    ("Desert Bloom Studios", 2),
    ("Isar Biotech", 5),
    ("Bondi Broadcast", 11),
    ("Cumberland Archives", 4),
    ("Catalonia Cycling", 8),
    ("Aurora Weather", 3),
    ("Pinecone Payroll", 1),
    ("Marina Minecraft", 9),
    ("Brightwater Schools", 0),
    ("Gascogne Vins", 6),
    ("Silverbirch Security", 4),
    ("Neckar Motion", 5),
    ("Hudson Street Fashion", 0),
    ("Coral Reef VR", 11),
    ("Ganges Genomics", 10),
    ("Delft Drones", 7),
    ("Outpost Servers", 1),
    ("Calgary Crude Data", 3),
    ("Valencia Vida", 8),
    ("Merlion Markets", 9),
];

const fn plan(name: &'static str, kind: ServiceKind, billing: FleetBilling, price_minor: i64) -> FleetPlan {
    FleetPlan {
        name,
        kind,
        billing,
        price_minor,
    }
}

const fn transfer(name: &'static str, kind: ServiceKind, included_gib: u64, price_minor: i64) -> FleetPlan {
    plan(name, kind, FleetBilling::Transfer { included_gib }, price_minor)
}

const fn p95(name: &'static str, kind: ServiceKind, commit_mbps: u64, price_minor: i64) -> FleetPlan {
    plan(name, kind, FleetBilling::Percentile95 { commit_mbps }, price_minor)
}

/// Ascending within a kind and billing model.
pub(super) const PLANS: [FleetPlan; 24] = [
    transfer("VPS Small", ServiceKind::Vps, 500, 800),
    transfer("VPS Medium", ServiceKind::Vps, 1_000, 1_600),
    transfer("VPS Large", ServiceKind::Vps, 2_000, 3_200),
    transfer("VPS Pro", ServiceKind::Vps, 5_000, 6_400),
    plan("VPS Unmetered", ServiceKind::Vps, FleetBilling::Flat, 4_900),
    transfer("Dedicated E3", ServiceKind::Dedicated, 5_000, 9_900),
    transfer("Dedicated Dual", ServiceKind::Dedicated, 10_000, 18_900),
    transfer("Dedicated Dual 20T", ServiceKind::Dedicated, 20_000, 24_900),
    plan(
        "Dedicated Unmetered 1G",
        ServiceKind::Dedicated,
        FleetBilling::Flat,
        34_900,
    ),
    p95("Dedicated Burst 20", ServiceKind::Dedicated, 20, 22_900),
    p95("Dedicated Burst 50", ServiceKind::Dedicated, 50, 29_900),
    p95("Dedicated Burst 100", ServiceKind::Dedicated, 100, 44_900),
    transfer("Web Starter", ServiceKind::Web, 100, 400),
    transfer("Web Business", ServiceKind::Web, 500, 1_200),
    transfer("Web Agency", ServiceKind::Web, 2_000, 2_900),
    plan("Web Unlimited", ServiceKind::Web, FleetBilling::Flat, 1_900),
    transfer("Game 16 Slots", ServiceKind::Game, 1_000, 1_500),
    transfer("Game 64 Slots", ServiceKind::Game, 3_000, 3_900),
    p95("Game Network 50", ServiceKind::Game, 50, 19_900),
    plan("Game Flat", ServiceKind::Game, FleetBilling::Flat, 2_500),
    plan("MySQL Standard", ServiceKind::Mysql, FleetBilling::Flat, 2_000),
    transfer("MySQL Replicated", ServiceKind::Mysql, 200, 5_500),
    transfer("Workspace Solo", ServiceKind::Workspace, 300, 1_500),
    plan("Workspace Team", ServiceKind::Workspace, FleetBilling::Flat, 6_500),
];

/// A network on the other side: its AS number and a prefix of it.
#[derive(PartialEq, Debug)]
pub(super) struct Peer {
    pub(super) asn: u32,
    pub(super) v4: [u8; 2],
    pub(super) v6: [u8; 4],
}

const fn peer(asn: u32, v4: [u8; 2], v6: [u8; 4]) -> Peer {
    Peer { asn, v4, v6 }
}

/// Clouds and content first, then access networks by region.
pub(super) const PEERS_EVERYWHERE: [Peer; 6] = [
    peer(15_169, [142, 250], [0x2a, 0x00, 0x14, 0x50]),
    peer(13_335, [104, 16], [0x26, 0x06, 0x47, 0x00]),
    peer(16_509, [52, 94], [0x26, 0x00, 0x1f, 0x00]),
    peer(8_075, [20, 42], [0x26, 0x03, 0x10, 0x00]),
    peer(32_934, [157, 240], [0x2a, 0x03, 0x28, 0x80]),
    peer(20_940, [23, 45], [0x2a, 0x02, 0x26, 0xf0]),
];
pub(super) const PEERS_AMERICA: [Peer; 6] = [
    peer(7_922, [73, 15], [0x26, 0x01, 0x01, 0x00]),
    peer(7_018, [99, 24], [0x26, 0x00, 0x17, 0x00]),
    peer(701, [71, 163], [0x26, 0x00, 0x40, 0x00]),
    peer(812, [99, 224], [0x26, 0x07, 0xfe, 0xa8]),
    peer(28_573, [177, 32], [0x28, 0x04, 0x01, 0x4c]),
    peer(20_115, [24, 158], [0x26, 0x00, 0x6c, 0x00]),
];
pub(super) const PEERS_EUROPE: [Peer; 6] = [
    peer(3_320, [87, 128], [0x20, 0x03, 0x00, 0xe0]),
    peer(3_215, [90, 22], [0x2a, 0x01, 0xcb, 0x00]),
    peer(2_856, [86, 128], [0x2a, 0x00, 0x23, 0xc0]),
    peer(1_136, [77, 160], [0x2a, 0x02, 0xa4, 0x40]),
    peer(3_352, [83, 32], [0x2a, 0x02, 0x90, 0x00]),
    peer(6_830, [84, 112], [0x2a, 0x02, 0x08, 0x00]),
];
pub(super) const PEERS_ASIA: [Peer; 6] = [
    peer(9_506, [118, 200], [0x24, 0x01, 0x74, 0x00]),
    peer(4_766, [175, 192], [0x20, 0x01, 0x02, 0xb0]),
    peer(9_498, [122, 160], [0x24, 0x04, 0xa8, 0x00]),
    peer(4_713, [153, 128], [0x24, 0x00, 0x40, 0x50]),
    peer(1_221, [101, 160], [0x20, 0x01, 0x80, 0x00]),
    peer(4_134, [117, 21], [0x24, 0x0e, 0x00, 0x00]),
];
