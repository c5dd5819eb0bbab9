//! EN 16931 invoices and credit notes in UBL 2.1.
//!
//! The core invoice (`urn:cen.eu:en16931:2017`) without any country's additions. Terms in comments (BT-10, BR-O-02) are those
//! of the standard and of its published rules.
//!
//! * A line's amount is its quantity times its price. Where that does not hold (graduated prices, prices with tax included), the
//!   line is one piece at its amount, and says in words how the amount came about.
//! * A line has one category of tax, that of its group of lines: what corrects an earlier charge bears the rate that it was charged
//!   with, beside what is charged now. Several taxes on the same net (Canada's GST and QST) are one of their summed rate,
//!   and a note names the parts.
//! * A price is never negative (BR-27): the quantity is.
//! * Amounts have two decimals at most, so a currency of three (KWD) works only while the third is zero.

use std::collections::BTreeMap;

use jiff::civil::Date;
use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};
use rust_decimal::Decimal;
use schemas::money::{Money, MoneyError};

use super::{Days, Document, DocumentKind, DocumentLine, Party, unit_words};
use crate::ratio::Ratio;
use crate::tax::{TaxAmount, TaxCategory, TaxRule, vat_territory};

const CUSTOMIZATION: &str = "urn:cen.eu:en16931:2017";
/// Decimal places of an amount at most (BR-DEC-*).
const MAX_AMOUNT_DECIMALS: u32 = 2;
/// Of electronic addresses: an email address (code list EAS).
const EMAIL_SCHEME: &str = "EM";

/// Why a document has no XML by EN 16931: what is missing, and where it is set.
#[derive(Debug, thiserror::Error)]
pub enum UblError {
    #[error("the seller's {field} is not known: set it with `ezscale entity set`")]
    Seller { field: &'static str },
    #[error("the buyer's {field} is not known: set it in the customer's billing profile")]
    Buyer { field: &'static str },
    #[error("a document has at least one line")]
    NoLines,
    #[error("a document says which tax holds, be it none")]
    NoTax,
    #[error("taxes of {0} and {1} together cannot be said in EN 16931")]
    MixedCategories(TaxCategory, TaxCategory),
    #[error("{0} does not say why no tax is charged")]
    NoReason(String),
    #[error("{amount} has more than two decimals, which EN 16931 does not know")]
    TooFine { amount: Money },
    #[error("{what} is {said}, not {computed}")]
    Unbalanced {
        what: &'static str,
        said: Money,
        computed: Money,
    },
    #[error("compute an amount")]
    Money(#[from] MoneyError),
    #[error("write the XML")]
    Write(#[from] std::io::Error),
    #[error("write the XML as UTF-8")]
    Utf8(#[from] std::string::FromUtf8Error),
}

schemas::error_codes! {
    UblError: "e_invoice";
    of [Money]
    source []
    Refused:
        Seller = "seller", Buyer = "buyer", MixedCategories = "mixed_categories", NoReason = "no_reason";
    Fault:
        NoLines = "no_lines", NoTax = "no_tax", TooFine = "too_fine", Unbalanced = "unbalanced", Write = "write",
        Utf8 = "utf8";
}

/// The document as UBL 2.1 XML.
///
/// # Errors
/// When something that the standard requires is not known, or the amounts do not add up.
pub fn xml(document: &Document) -> Result<String, UblError> {
    check(document)?;
    let tax = DocumentTax::of(document)?;
    require_parties(document, &tax)?;
    let mut out = Out::new();
    let (root, line_name) = match document.kind {
        DocumentKind::Invoice => ("Invoice", "cac:InvoiceLine"),
        DocumentKind::CreditNote => ("CreditNote", "cac:CreditNoteLine"),
    };
    let mut start = BytesStart::new(root);
    let namespace = format!("urn:oasis:names:specification:ubl:schema:xsd:{root}-2");
    start.push_attribute(("xmlns", namespace.as_str()));
    start.push_attribute((
        "xmlns:cac",
        "urn:oasis:names:specification:ubl:schema:xsd:CommonAggregateComponents-2",
    ));
    start.push_attribute((
        "xmlns:cbc",
        "urn:oasis:names:specification:ubl:schema:xsd:CommonBasicComponents-2",
    ));
    out.event(Event::Start(start))?;
    head(&mut out, document, &tax)?;
    seller(&mut out, document, &tax)?;
    buyer(&mut out, document, &tax)?;
    payment_terms(&mut out, document)?;
    totals(&mut out, document, &tax)?;
    for line in &document.lines {
        self::line(&mut out, document, &tax, line, line_name)?;
    }
    out.event(Event::End(BytesEnd::new(root)))?;
    out.finish()
}

/// The one category and rate that the standard knows for the lines of a group.
struct GroupTax {
    group: i64,
    category: TaxCategory,
    percent: Decimal,
    reason: String,
    /// Names of the taxes that were added up, when there are several.
    parts: String,
    net: Money,
    tax: Money,
}

impl GroupTax {
    fn of(group: i64, amounts: &[&TaxAmount]) -> Result<GroupTax, UblError> {
        let first = *amounts.first().ok_or(UblError::NoTax)?;
        let mut percent = Decimal::ZERO;
        let mut tax = Money::zero(first.net.currency);
        for amount in amounts {
            let is_rated = |rule: &TaxRule| matches!(rule.category, TaxCategory::Standard | TaxCategory::ZeroRated);
            if amounts.len() > 1 && !(is_rated(&first.rule) && is_rated(&amount.rule)) {
                return Err(UblError::MixedCategories(first.rule.category, amount.rule.category));
            }
            percent += amount.rule.rate.value();
            tax = tax.checked_add(amount.tax)?;
        }
        let category = match first.rule.category {
            TaxCategory::Standard | TaxCategory::ZeroRated if percent > Decimal::ZERO => TaxCategory::Standard,
            category => category,
        };
        let needs_reason = !matches!(category, TaxCategory::Standard | TaxCategory::ZeroRated);
        if needs_reason && first.rule.note.is_empty() {
            return Err(UblError::NoReason(first.rule.name.clone()));
        }
        let names: Vec<&str> = amounts.iter().map(|amount| amount.rule.name.as_str()).collect();
        Ok(GroupTax {
            group,
            category,
            percent: percent.normalize(),
            reason: if needs_reason {
                first.rule.note.clone()
            } else {
                String::new()
            },
            parts: if amounts.len() > 1 {
                names.join(" + ")
            } else {
                String::new()
            },
            net: first.net,
            tax,
        })
    }

    /// The code list's reason, where the Union's law is the reason (VATEX).
    fn reason_code(&self, seller: &Party) -> Option<&'static str> {
        match self.category {
            TaxCategory::ReverseCharge => Some("VATEX-EU-AE"),
            TaxCategory::Export => Some("VATEX-EU-G"),
            TaxCategory::OutOfScope if vat_territory(&seller.country).is_some() => Some("VATEX-EU-O"),
            _ => None,
        }
    }

    /// What is out of scope has no rate, not even zero (BR-O-05).
    fn percent_text(&self) -> Option<String> {
        (self.category != TaxCategory::OutOfScope).then(|| self.percent.to_string())
    }
}

/// The taxes of a document, by group of its lines. Corrections bear the taxes of what they correct, beside today's.
struct DocumentTax {
    groups: Vec<GroupTax>,
}

impl DocumentTax {
    fn of(document: &Document) -> Result<DocumentTax, UblError> {
        let mut by_group: BTreeMap<i64, Vec<&TaxAmount>> = BTreeMap::new();
        for amount in &document.taxes {
            by_group.entry(amount.group).or_default().push(amount);
        }
        let mut groups = Vec::with_capacity(by_group.len());
        for (group, amounts) in by_group {
            groups.push(GroupTax::of(group, &amounts)?);
        }
        let first = groups.first().ok_or(UblError::NoTax)?;
        // What is out of scope stands alone (BR-O-11).
        let is_outside = |tax: &GroupTax| tax.category == TaxCategory::OutOfScope;
        if let Some(other) = groups.iter().find(|tax| is_outside(tax) != is_outside(first)) {
            return Err(UblError::MixedCategories(first.category, other.category));
        }
        for line in &document.lines {
            if !groups.iter().any(|tax| tax.group == line.tax_group) {
                return Err(UblError::NoTax);
            }
        }
        Ok(DocumentTax { groups })
    }

    fn has(&self, category: TaxCategory) -> bool {
        self.groups.iter().any(|tax| tax.category == category)
    }

    fn of_line(&self, line: &DocumentLine) -> Result<&GroupTax, UblError> {
        let tax = self.groups.iter().find(|tax| tax.group == line.tax_group);
        tax.ok_or(UblError::NoTax)
    }

    /// Groups of the same category and rate are one of the breakdown (BG-23): first of each, with net and tax of all.
    fn breakdown(&self) -> Result<Vec<(&GroupTax, Money, Money)>, UblError> {
        let mut rows: Vec<(&GroupTax, Money, Money)> = Vec::new();
        for tax in &self.groups {
            let same = |row: &&mut (&GroupTax, Money, Money)| {
                row.0.category == tax.category && row.0.percent == tax.percent && row.0.reason == tax.reason
            };
            match rows.iter_mut().find(same) {
                Some(row) => {
                    row.1 = row.1.checked_add(tax.net)?;
                    row.2 = row.2.checked_add(tax.tax)?;
                }
                None => rows.push((tax, tax.net, tax.tax)),
            }
        }
        Ok(rows)
    }
}

/// That the amounts add up (BR-CO-10, 13 to 16), as everybody who receives the document checks.
fn check(document: &Document) -> Result<(), UblError> {
    if document.lines.is_empty() {
        return Err(UblError::NoLines);
    }
    let mut lines = Money::zero(document.currency);
    for line in &document.lines {
        lines = lines.checked_add(line.net)?;
    }
    let mut taxes = Money::zero(document.currency);
    for amount in &document.taxes {
        taxes = taxes.checked_add(amount.tax)?;
    }
    let total = document.subtotal.checked_add(document.tax)?;
    let open = document.total.checked_add(document.paid.checked_neg()?)?;
    for (what, said, computed) in [
        ("the subtotal", document.subtotal, lines),
        ("the tax", document.tax, taxes),
        ("the total", document.total, total),
        ("what is open", document.open, open),
    ] {
        if said != computed {
            return Err(UblError::Unbalanced { what, said, computed });
        }
    }
    Ok(())
}

fn require_parties(document: &Document, tax: &DocumentTax) -> Result<(), UblError> {
    let (seller, buyer) = (&document.seller, &document.buyer);
    let of_seller = |field| UblError::Seller { field };
    let of_buyer = |field| UblError::Buyer { field };
    if seller.name.is_empty() {
        return Err(of_seller("name"));
    }
    if buyer.name.is_empty() {
        return Err(of_buyer("name"));
    }
    if seller.country.is_empty() {
        return Err(of_seller("country"));
    }
    if buyer.country.is_empty() {
        return Err(of_buyer("country"));
    }
    if tax.has(TaxCategory::OutOfScope) {
        // BR-O-02 forbids VAT numbers, so that the register's number alone tells who sells (BR-CO-26).
        if seller.registration.is_empty() {
            return Err(of_seller("registration number (`--registration`)"));
        }
        return Ok(());
    }
    if seller.vat_id.is_empty() {
        return Err(of_seller("VAT number (`--vat-id`)"));
    }
    if tax.has(TaxCategory::ReverseCharge) && buyer.vat_id.is_empty() {
        return Err(of_buyer("VAT number"));
    }
    Ok(())
}

fn head(out: &mut Out, document: &Document, tax: &DocumentTax) -> Result<(), UblError> {
    out.text("cbc:CustomizationID", CUSTOMIZATION)?;
    out.text("cbc:ID", &document.number)?;
    out.text("cbc:IssueDate", &document.issued_on.to_string())?;
    match document.kind {
        DocumentKind::Invoice => {
            if let Some(due_on) = document.due_on {
                out.text("cbc:DueDate", &due_on.to_string())?;
            }
            out.text("cbc:InvoiceTypeCode", "380")?;
        }
        DocumentKind::CreditNote => out.text("cbc:CreditNoteTypeCode", "381")?,
    }
    for note in &document.notes {
        out.text("cbc:Note", note)?;
    }
    let mut parts: Vec<&str> = Vec::new();
    for tax in tax.groups.iter().filter(|tax| !tax.parts.is_empty()) {
        if !parts.contains(&tax.parts.as_str()) {
            parts.push(&tax.parts);
        }
    }
    for parts in parts {
        out.text("cbc:Note", &format!("Taxes: {parts}"))?;
    }
    out.text("cbc:DocumentCurrencyCode", document.currency.code())?;
    out.text("cbc:BuyerReference", &document.purchase_order)?;
    if let Some(period) = document.period {
        days(out, period)?;
    }
    if !document.purchase_order.is_empty() {
        out.open("cac:OrderReference")?;
        out.text("cbc:ID", &document.purchase_order)?;
        out.close("cac:OrderReference")?;
    }
    if let Some(corrects) = &document.corrects {
        out.open("cac:BillingReference")?;
        out.open("cac:InvoiceDocumentReference")?;
        out.text("cbc:ID", &corrects.number)?;
        out.text("cbc:IssueDate", &corrects.issued_on.to_string())?;
        out.close("cac:InvoiceDocumentReference")?;
        out.close("cac:BillingReference")?;
    }
    Ok(())
}

fn days(out: &mut Out, period: Days) -> Result<(), UblError> {
    let text = |date: Date| date.to_string();
    out.open("cac:InvoicePeriod")?;
    out.text("cbc:StartDate", &text(period.first))?;
    out.text("cbc:EndDate", &text(period.last))?;
    out.close("cac:InvoicePeriod")
}

fn seller(out: &mut Out, document: &Document, tax: &DocumentTax) -> Result<(), UblError> {
    let party = &document.seller;
    out.open("cac:AccountingSupplierParty")?;
    out.open("cac:Party")?;
    electronic_address(out, party)?;
    address(out, party)?;
    // Where no VAT number may be given, the law still wants it: as a number of another register (BT-32).
    let scheme = if tax.has(TaxCategory::OutOfScope) { "FC" } else { "VAT" };
    tax_number(out, &party.vat_id, scheme)?;
    legal_entity(out, party)?;
    if !party.email.is_empty() {
        out.open("cac:Contact")?;
        out.text("cbc:ElectronicMail", &party.email)?;
        out.close("cac:Contact")?;
    }
    out.close("cac:Party")?;
    out.close("cac:AccountingSupplierParty")
}

fn buyer(out: &mut Out, document: &Document, tax: &DocumentTax) -> Result<(), UblError> {
    let party = &document.buyer;
    out.open("cac:AccountingCustomerParty")?;
    out.open("cac:Party")?;
    electronic_address(out, party)?;
    address(out, party)?;
    if !tax.has(TaxCategory::OutOfScope) {
        tax_number(out, &party.vat_id, "VAT")?;
    }
    legal_entity(out, party)?;
    out.close("cac:Party")?;
    out.close("cac:AccountingCustomerParty")
}

fn electronic_address(out: &mut Out, party: &Party) -> Result<(), UblError> {
    if party.email.is_empty() {
        return Ok(());
    }
    out.with("cbc:EndpointID", &[("schemeID", EMAIL_SCHEME)], &party.email)
}

fn address(out: &mut Out, party: &Party) -> Result<(), UblError> {
    out.open("cac:PostalAddress")?;
    out.text("cbc:StreetName", &party.street)?;
    out.text("cbc:CityName", &party.city)?;
    out.text("cbc:PostalZone", &party.postal_code)?;
    out.text("cbc:CountrySubentity", &party.region)?;
    out.open("cac:Country")?;
    out.text("cbc:IdentificationCode", &party.country)?;
    out.close("cac:Country")?;
    out.close("cac:PostalAddress")
}

fn tax_number(out: &mut Out, number: &str, scheme: &str) -> Result<(), UblError> {
    if number.is_empty() {
        return Ok(());
    }
    out.open("cac:PartyTaxScheme")?;
    out.text("cbc:CompanyID", number)?;
    out.open("cac:TaxScheme")?;
    out.text("cbc:ID", scheme)?;
    out.close("cac:TaxScheme")?;
    out.close("cac:PartyTaxScheme")
}

fn legal_entity(out: &mut Out, party: &Party) -> Result<(), UblError> {
    out.open("cac:PartyLegalEntity")?;
    out.text("cbc:RegistrationName", &party.name)?;
    out.text("cbc:CompanyID", &party.registration)?;
    out.close("cac:PartyLegalEntity")
}

/// An amount that is due needs a date or terms (BR-CO-25).
fn payment_terms(out: &mut Out, document: &Document) -> Result<(), UblError> {
    let terms = match (document.kind, document.payment_instructions.is_empty()) {
        (DocumentKind::CreditNote, _) => "The amount is credited to your account.",
        (DocumentKind::Invoice, false) => &document.payment_instructions,
        (DocumentKind::Invoice, true) if document.due_on.is_none() => "Due upon receipt.",
        (DocumentKind::Invoice, true) => return Ok(()),
    };
    out.open("cac:PaymentTerms")?;
    out.text("cbc:Note", terms)?;
    out.close("cac:PaymentTerms")
}

fn totals(out: &mut Out, document: &Document, tax: &DocumentTax) -> Result<(), UblError> {
    out.open("cac:TaxTotal")?;
    out.amount("cbc:TaxAmount", document.said(document.tax))?;
    for (group, net, amount) in tax.breakdown()? {
        out.open("cac:TaxSubtotal")?;
        out.amount("cbc:TaxableAmount", document.said(net))?;
        out.amount("cbc:TaxAmount", document.said(amount))?;
        out.open("cac:TaxCategory")?;
        out.text("cbc:ID", group.category.code())?;
        out.text("cbc:Percent", &group.percent_text().unwrap_or_default())?;
        if !group.reason.is_empty() {
            out.text(
                "cbc:TaxExemptionReasonCode",
                group.reason_code(&document.seller).unwrap_or_default(),
            )?;
            out.text("cbc:TaxExemptionReason", &group.reason)?;
        }
        vat_scheme(out)?;
        out.close("cac:TaxCategory")?;
        out.close("cac:TaxSubtotal")?;
    }
    out.close("cac:TaxTotal")?;

    out.open("cac:LegalMonetaryTotal")?;
    out.amount("cbc:LineExtensionAmount", document.said(document.subtotal))?;
    out.amount("cbc:TaxExclusiveAmount", document.said(document.subtotal))?;
    out.amount("cbc:TaxInclusiveAmount", document.said(document.total))?;
    if document.paid.minor != 0 {
        out.amount("cbc:PrepaidAmount", document.said(document.paid))?;
    }
    out.amount("cbc:PayableAmount", document.said(document.open))?;
    out.close("cac:LegalMonetaryTotal")
}

fn vat_scheme(out: &mut Out) -> Result<(), UblError> {
    out.open("cac:TaxScheme")?;
    out.text("cbc:ID", "VAT")?;
    out.close("cac:TaxScheme")
}

fn line(
    out: &mut Out,
    document: &Document,
    tax: &DocumentTax,
    line: &DocumentLine,
    name: &'static str,
) -> Result<(), UblError> {
    let net = document.said(line.net);
    let tax = tax.of_line(line)?;
    let priced = Priced::of(line, net)?;
    out.open(name)?;
    out.text("cbc:ID", &line.position.to_string())?;
    let quantity_name = match document.kind {
        DocumentKind::Invoice => "cbc:InvoicedQuantity",
        DocumentKind::CreditNote => "cbc:CreditedQuantity",
    };
    out.with(
        quantity_name,
        &[("unitCode", priced.unit_code)],
        &priced.quantity.to_string(),
    )?;
    out.amount("cbc:LineExtensionAmount", net)?;
    if let Some(period) = line.period {
        days(out, period)?;
    }
    out.open("cac:Item")?;
    let said: Vec<&str> = [line.detail.as_str(), &priced.said]
        .into_iter()
        .filter(|text| !text.is_empty())
        .collect();
    out.text("cbc:Description", &said.join("; "))?;
    out.text("cbc:Name", &line.description)?;
    out.open("cac:ClassifiedTaxCategory")?;
    out.text("cbc:ID", tax.category.code())?;
    out.text("cbc:Percent", &tax.percent_text().unwrap_or_default())?;
    vat_scheme(out)?;
    out.close("cac:ClassifiedTaxCategory")?;
    out.close("cac:Item")?;
    out.open("cac:Price")?;
    let currency = document.currency.code();
    out.with(
        "cbc:PriceAmount",
        &[("currencyID", currency)],
        &priced.price.to_string(),
    )?;
    out.close("cac:Price")?;
    out.close(name)
}

/// A quantity and a price whose product is the line's amount.
struct Priced {
    quantity: Decimal,
    unit_code: &'static str,
    /// Not negative.
    price: Decimal,
    /// How the amount came about, where quantity and price do not say it.
    said: String,
}

impl Priced {
    fn of(line: &DocumentLine, net: Money) -> Result<Priced, UblError> {
        let (quantity, price) = (line.quantity.abs(), line.unit_price.abs());
        let product = Ratio::decimal(quantity)?
            .times(Ratio::decimal(price)?)?
            .to_money(net.currency)?;
        let sign = if net.minor < 0 { -Decimal::ONE } else { Decimal::ONE };
        let amount = net.to_major().abs();
        if product.to_major() == amount && !quantity.is_zero() {
            return Ok(Priced {
                quantity: (quantity * sign).normalize(),
                unit_code: unit_code(&line.unit),
                price: price.normalize(),
                said: String::new(),
            });
        }
        let unit = if line.unit.is_empty() {
            String::new()
        } else {
            format!(" {}", unit_words(&line.unit))
        };
        Ok(Priced {
            quantity: sign,
            unit_code: unit_code(""),
            price: amount,
            said: format!("{}{unit} × {}", line.quantity.normalize(), line.unit_price.normalize()),
        })
    }
}

/// Codes of UN/ECE Recommendation 20; what it does not know is counted in pieces.
fn unit_code(unit: &str) -> &'static str {
    match unit {
        "MB" => "4L",
        "GB" => "E34",
        "TB" => "E35",
        "PB" => "E36",
        "MiB" => "E63",
        "GiB" => "E62",
        "TiB" => "E61",
        "PiB" => "E60",
        "Mbit/s" => "E20",
        "Gbit/s" => "B80",
        "hour" => "HUR",
        "day" => "DAY",
        "month" => "MON",
        "year" => "ANN",
        _ => "C62",
    }
}

/// The writer: elements without text are left out, as the standard has no empty ones.
struct Out(Writer<Vec<u8>>);

impl Out {
    fn new() -> Out {
        Out(Writer::new_with_indent(Vec::new(), b' ', 2))
    }

    fn event(&mut self, event: Event<'_>) -> Result<(), UblError> {
        Ok(self.0.write_event(event)?)
    }

    fn open(&mut self, name: &'static str) -> Result<(), UblError> {
        self.event(Event::Start(BytesStart::new(name)))
    }

    fn close(&mut self, name: &'static str) -> Result<(), UblError> {
        self.event(Event::End(BytesEnd::new(name)))
    }

    fn text(&mut self, name: &'static str, text: &str) -> Result<(), UblError> {
        self.with(name, &[], text)
    }

    fn with(&mut self, name: &'static str, attributes: &[(&str, &str)], text: &str) -> Result<(), UblError> {
        let text = sound(text);
        if text.trim().is_empty() {
            return Ok(());
        }
        let mut start = BytesStart::new(name);
        for &attribute in attributes {
            start.push_attribute(attribute);
        }
        self.event(Event::Start(start))?;
        self.event(Event::Text(BytesText::new(text.trim())))?;
        self.close(name)
    }

    fn amount(&mut self, name: &'static str, amount: Money) -> Result<(), UblError> {
        let mut major = amount.to_major();
        if major.normalize().scale() > MAX_AMOUNT_DECIMALS {
            return Err(UblError::TooFine { amount });
        }
        if major.scale() > MAX_AMOUNT_DECIMALS {
            major.rescale(MAX_AMOUNT_DECIMALS);
        }
        self.with(name, &[("currencyID", amount.currency.code())], &major.to_string())
    }

    fn finish(self) -> Result<String, UblError> {
        let body = String::from_utf8(self.0.into_inner())?;
        let mut declared = Writer::new(Vec::new());
        declared.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
        let declaration = String::from_utf8(declared.into_inner())?;
        Ok(format!("{declaration}\n{body}\n"))
    }
}

/// Without the characters that XML 1.0 cannot hold (§2.2).
fn sound(text: &str) -> String {
    text.chars()
        .filter(|&c| c == '\n' || c == '\t' || (c >= ' ' && !matches!(c, '\u{FFFE}' | '\u{FFFF}')))
        .collect()
}

#[cfg(test)]
mod tests;
