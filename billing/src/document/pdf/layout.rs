//! Where everything goes. Reads from top to bottom as the paper does.

use jiff::civil::Date;
use rust_decimal::Decimal;
use schemas::money::{Currency, Money};

use super::page::{HEIGHT, Ink, Page, Style, WIDTH, mm};
use super::text::{Faces, Weight};
use crate::document::{Days, Document, DocumentKind, DocumentLine, unit_words};
use crate::tax;

const TITLE: Style = Style::new(17.0, Weight::Bold, Ink::Text);
const SELLER: Style = Style::new(13.0, Weight::Bold, Ink::Text);
const BODY: Style = Style::new(9.0, Weight::Regular, Ink::Text);
const STRONG: Style = Style::new(9.0, Weight::Bold, Ink::Text);
const MUTED: Style = Style::new(9.0, Weight::Regular, Ink::Muted);
const SMALL: Style = Style::new(7.5, Weight::Regular, Ink::Muted);
const SENDER: Style = Style::new(6.5, Weight::Regular, Ink::Muted);
const HEAD: Style = Style::new(7.5, Weight::Bold, Ink::Muted);
const TOTAL: Style = Style::new(11.0, Weight::Bold, Ink::Text);

/// Room between two rows of the table.
const ROW_GAP: f32 = 7.0;
/// Room between two columns of the table.
const COLUMN_GAP: f32 = 12.0;
/// A quantity or price wider than this is wrapped.
const MAX_FIGURE_WIDTH: f32 = 105.0;
/// Smallest type of the foot of a page, in points.
const FOOT_SIZE_MIN: f32 = 5.5;
/// Decimal places of a printed quantity at most; the exact one stands in the line's evidence.
const MAX_QUANTITY_DECIMALS: u32 = 9;

/// The pages of a document.
pub(super) fn pages(document: &Document, faces: &Faces) -> Vec<Page> {
    let mut sheet = Sheet::new(document, faces);
    sheet.letterhead();
    sheet.title();
    sheet.lines();
    sheet.totals();
    sheet.remarks();
    sheet.payment();
    sheet.numbered()
}

/// Edges of what is printed.
struct Edges {
    left: f32,
    right: f32,
    top: f32,
    bottom: f32,
}

fn edges() -> Edges {
    Edges {
        left: mm(25.0),
        right: WIDTH - mm(20.0),
        top: mm(20.0),
        bottom: HEIGHT - mm(27.0),
    }
}

/// Columns of the table: the right edge of each column of figures, and how wide the description is.
struct Columns {
    description: f32,
    description_width: f32,
    quantity: f32,
    quantity_width: f32,
    price: f32,
    price_width: f32,
}

/// A row of the table, its texts already broken into lines.
struct Row {
    position: String,
    description: Vec<String>,
    explained: Vec<String>,
    quantity: Vec<String>,
    price: Vec<String>,
    amount: String,
}

impl Row {
    fn height(&self) -> f32 {
        let figures = self.quantity.len().max(self.price.len()).max(1);
        let told = self.description.len() as f32 * BODY.leading() + self.explained.len() as f32 * SMALL.leading();
        told.max(figures as f32 * BODY.leading()) + ROW_GAP
    }
}

struct Sheet<'a> {
    document: &'a Document,
    faces: &'a Faces,
    edges: Edges,
    done: Vec<Page>,
    page: Page,
    /// The top of what comes next.
    y: f32,
}

impl<'a> Sheet<'a> {
    fn new(document: &'a Document, faces: &'a Faces) -> Sheet<'a> {
        let edges = edges();
        let y = edges.top;
        Sheet {
            document,
            faces,
            edges,
            done: Vec::new(),
            page: Page::default(),
            y,
        }
    }

    fn left_over(&self) -> f32 {
        self.edges.bottom - self.y
    }

    /// Goes on on a new page, which says what it continues.
    fn turn(&mut self) {
        self.done.push(std::mem::take(&mut self.page));
        let baseline = self.edges.top;
        let (left, right) = (self.edges.left, self.edges.right);
        let continued = format!("{} {}, continued", self.document.kind.title(), self.document.number);
        self.page.text(left, baseline, STRONG, &continued);
        self.page.right_text(
            self.faces,
            right,
            baseline,
            MUTED,
            &fitted(self.faces, &self.document.seller.name, MUTED, mm(70.0)),
        );
        self.y = baseline + mm(9.0);
    }

    /// Turns the page when less than `height` is left; what is higher than a page begins where it is.
    fn make_room(&mut self, height: f32) {
        let page_height = self.edges.bottom - self.edges.top - mm(9.0);
        if self.left_over() < height && height <= page_height {
            self.turn();
        }
    }

    /// Seller, address window and facts.
    fn letterhead(&mut self) {
        let (document, faces) = (self.document, self.faces);
        let (left, right) = (self.edges.left, self.edges.right);
        let facts_left = mm(122.0);
        let is_abroad = document.seller.country != document.buyer.country;

        // The seller's name, and under it how to reach and identify it.
        let mut baseline = mm(22.0);
        for line in faces.wrap(&document.seller.name, SELLER.weight, SELLER.size, right - left) {
            self.page.text(left, baseline, SELLER, &line);
            baseline += SELLER.leading();
        }
        let seller = &document.seller;
        let mut address = seller.address_lines(false);
        address.remove(0);
        let mut known = vec![address.join(", "), seller.email.clone()];
        known.retain(|part| !part.is_empty());
        for line in faces.wrap(&known.join("  ·  "), SMALL.weight, SMALL.size, right - left) {
            self.page.text(left, baseline, SMALL, &line);
            baseline += SMALL.leading();
        }

        // The window: 85 × 45 mm from 20 mm and 45 mm; the sender over the recipient, in small.
        let window_width = mm(80.0);
        // The sender's country is of use to the post only, and left out where it does not fit.
        let sender = seller.address_lines(is_abroad).join(" · ");
        let is_too_long = faces.width(&sender, SENDER.weight, SENDER.size) > window_width;
        let sender = if is_too_long {
            seller.address_lines(false).join(" · ")
        } else {
            sender
        };
        self.page
            .text(left, mm(57.0), SENDER, &fitted(faces, &sender, SENDER, window_width));
        let mut baseline = mm(64.5);
        let window_bottom = mm(89.0);
        for line in document.buyer.address_lines(is_abroad) {
            for line in faces.wrap(&line, Weight::Regular, 10.0, window_width) {
                if baseline <= window_bottom {
                    self.page
                        .text(left, baseline, Style::new(10.0, Weight::Regular, Ink::Text), &line);
                }
                baseline += 13.0;
            }
        }

        let mut baseline = mm(57.0);
        let label_width = mm(27.0);
        for (label, value) in self.facts() {
            self.page.text(facts_left, baseline, MUTED, label);
            let value_left = facts_left + label_width;
            for line in faces.wrap(&value, BODY.weight, BODY.size, right - value_left) {
                self.page.text(value_left, baseline, BODY, &line);
                baseline += BODY.leading();
            }
            baseline += 1.5;
        }
        self.y = mm(101.0).max(baseline + mm(5.0));
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let document = self.document;
        let mut facts = vec![("Number", document.number.clone()), ("Date", day(document.issued_on))];
        if let Some(due_on) = document.due_on {
            facts.push(("Due", day(due_on)));
        }
        if let Some(period) = document.period {
            facts.push(("Period", days(period)));
        }
        if let Some(corrects) = &document.corrects {
            facts.push((
                "Corrects",
                format!("{}\nof {}", corrects.number, day(corrects.issued_on)),
            ));
        }
        for (label, value) in [
            ("Your reference", &document.purchase_order),
            ("Your VAT no.", &document.buyer.vat_id),
            ("Our VAT no.", &document.seller.vat_id),
        ] {
            if !value.is_empty() {
                facts.push((label, value.clone()));
            }
        }
        facts
    }

    fn title(&mut self) {
        let document = self.document;
        let title = format!("{} {}", document.kind.title(), document.number);
        self.y += TITLE.size;
        self.page.text(self.edges.left, self.y, TITLE, &title);
        self.y += mm(9.0);
    }

    fn columns(&self) -> Columns {
        let (document, faces) = (self.document, self.faces);
        let widest = |heading: &str, texts: &mut dyn Iterator<Item = String>| {
            let heading = faces.width(heading, HEAD.weight, HEAD.size);
            let width = texts
                .map(|text| faces.width(&text, BODY.weight, BODY.size))
                .fold(heading, f32::max);
            width.min(MAX_FIGURE_WIDTH)
        };
        let lines = &document.lines;
        let amount_width = widest(
            &self.amount_heading(),
            &mut lines.iter().map(|line| self.amount(line.net)),
        );
        let price_width = widest(self.price_heading(), &mut lines.iter().map(|line| self.price(line)));
        let quantity_width = widest("Quantity", &mut lines.iter().map(|line| self.quantity(line)));
        let position_width = faces.width(&lines.len().max(10).to_string(), BODY.weight, BODY.size);
        let price = self.edges.right - amount_width - COLUMN_GAP;
        let quantity = price - price_width - COLUMN_GAP;
        let description = self.edges.left + position_width + COLUMN_GAP;
        Columns {
            description,
            description_width: quantity - quantity_width - COLUMN_GAP - description,
            quantity,
            quantity_width,
            price,
            price_width,
        }
    }

    fn amount_heading(&self) -> String {
        format!("Net amount ({})", self.document.currency)
    }

    fn price_heading(&self) -> &'static str {
        if self.document.prices_include_tax {
            "Price incl. tax"
        } else {
            "Unit price"
        }
    }

    /// Without the currency, which stands at the head of the column.
    fn amount(&self, amount: Money) -> String {
        plain(self.document.said(amount))
    }

    fn price(&self, line: &DocumentLine) -> String {
        figure(line.unit_price, self.document.currency.minor_digits())
    }

    /// With the sign that makes quantity times price the amount that is printed, a credit note's too.
    fn quantity(&self, line: &DocumentLine) -> String {
        let mut quantity = line.quantity.round_dp(MAX_QUANTITY_DECIMALS);
        let is_below_zero = quantity.is_sign_negative() != line.unit_price.is_sign_negative();
        let said = self.document.said(line.net);
        if said.minor != 0 && is_below_zero != (said.minor < 0) {
            quantity = -quantity;
        }
        let text = figure(quantity, 0);
        if line.unit.is_empty() {
            text
        } else {
            // Not broken between number and unit.
            format!("{text}\u{A0}{}", unit_words(&line.unit).replace("× ", "×\u{A0}"))
        }
    }

    fn lines(&mut self) {
        let columns = self.columns();
        self.table_head(&columns);
        let document = self.document;
        for line in &document.lines {
            let row = self.row(line, &columns);
            let page_height = self.edges.bottom - self.edges.top - mm(20.0);
            if row.height() > self.left_over() && row.height() <= page_height {
                self.turn();
                self.table_head(&columns);
            }
            self.draw_row(&row, &columns);
        }
    }

    fn table_head(&mut self, columns: &Columns) {
        let (left, right) = (self.edges.left, self.edges.right);
        let baseline = self.y + HEAD.size;
        self.page.text(left, baseline, HEAD, "#");
        self.page.text(columns.description, baseline, HEAD, "Description");
        self.page
            .right_text(self.faces, columns.quantity, baseline, HEAD, "Quantity");
        self.page
            .right_text(self.faces, columns.price, baseline, HEAD, self.price_heading());
        self.page
            .right_text(self.faces, right, baseline, HEAD, &self.amount_heading());
        self.page.rule(left, right, baseline + 5.0, 0.9, Ink::Text);
        self.y = baseline + 5.0 + ROW_GAP / 2.0;
    }

    fn row(&self, line: &DocumentLine, columns: &Columns) -> Row {
        let faces = self.faces;
        let mut explained = Vec::new();
        if let Some(period) = line.period.filter(|&period| Some(period) != self.document.period) {
            explained.push(days(period));
        }
        explained.extend(faces.wrap(&line.detail, SMALL.weight, SMALL.size, columns.description_width));
        let body = |text: &str, width: f32| faces.wrap(text, BODY.weight, BODY.size, width);
        Row {
            position: line.position.to_string(),
            description: body(&line.description, columns.description_width),
            explained,
            // A hair wider than measured, so that what was the widest is not broken by rounding.
            quantity: body(&self.quantity(line), columns.quantity_width + 0.1),
            price: body(&self.price(line), columns.price_width + 0.1),
            amount: self.amount(line.net),
        }
    }

    fn draw_row(&mut self, row: &Row, columns: &Columns) {
        let (left, right) = (self.edges.left, self.edges.right);
        let top = self.y + BODY.size;
        self.page.text(left, top, MUTED, &row.position);
        for (text, line) in row.quantity.iter().zip(0u8..) {
            let baseline = top + f32::from(line) * BODY.leading();
            self.page.right_text(self.faces, columns.quantity, baseline, BODY, text);
        }
        for (text, line) in row.price.iter().zip(0u8..) {
            let baseline = top + f32::from(line) * BODY.leading();
            self.page.right_text(self.faces, columns.price, baseline, BODY, text);
        }
        self.page.right_text(self.faces, right, top, BODY, &row.amount);

        let figures_bottom = self.y + row.quantity.len().max(row.price.len()).max(1) as f32 * BODY.leading();
        let started_on = self.done.len();
        for (style, texts) in [(BODY, &row.description), (SMALL, &row.explained)] {
            for text in texts {
                // Only a row that is higher than a page gets here with no room left.
                if self.left_over() < style.leading() {
                    self.turn();
                    self.table_head(columns);
                }
                self.page.text(columns.description, self.y + style.size, style, text);
                self.y += style.leading();
            }
        }
        if self.done.len() == started_on {
            self.y = self.y.max(figures_bottom);
        }
        self.y += ROW_GAP / 2.0;
        self.page.rule(left, right, self.y, 0.4, Ink::Rule);
        self.y += ROW_GAP / 2.0;
    }

    /// Subtotal, taxes, total, what was paid and what is open: on one page.
    fn totals(&mut self) {
        let document = self.document;
        let currency = document.currency;
        let mut rows = vec![("Subtotal".to_owned(), document.subtotal)];
        for amount in &tax::merged(&document.taxes) {
            let on = if document.taxes.len() > 1 || amount.tax.minor != 0 {
                format!("{} on {}", amount.rule.name, self.amount(amount.net))
            } else {
                amount.rule.name.clone()
            };
            rows.push((on, amount.tax));
        }
        let is_settled_in_part = document.paid.minor != 0;
        let total = match document.kind {
            DocumentKind::Invoice => "Total",
            DocumentKind::CreditNote => "Total credited",
        };
        let height = (rows.len() + 3) as f32 * (BODY.leading() + 3.0) + TOTAL.leading() * 2.0 + mm(6.0);
        self.make_room(height);
        self.y += mm(2.0);

        let (right, label_left) = (self.edges.right, mm(110.0));
        for (label, amount) in rows {
            // Names of taxes have a limit, but not one that is this narrow.
            let amount = self.amount(amount);
            let room = right - label_left - self.faces.width(&amount, BODY.weight, BODY.size) - COLUMN_GAP;
            self.page
                .right_text(self.faces, right, self.y + BODY.size, BODY, &amount);
            for line in self.faces.wrap(&label, MUTED.weight, MUTED.size, room) {
                self.page.text(label_left, self.y + BODY.size, MUTED, &line);
                self.y += BODY.leading();
            }
            self.y += 3.0;
        }
        self.y += 1.0;
        self.page.rule(label_left, right, self.y, 0.9, Ink::Text);
        self.y += 5.0;
        self.total_row(label_left, total, &money(document.said(document.total), currency));
        if is_settled_in_part {
            let paid = self.amount(document.paid);
            self.page.text(label_left, self.y + BODY.size, MUTED, "Paid or settled");
            self.page.right_text(self.faces, right, self.y + BODY.size, BODY, &paid);
            self.y += BODY.leading() + 4.0;
            let open = money(document.said(document.open), currency);
            self.total_row(label_left, "Amount due", &open);
        }
        self.y += mm(5.0);
    }

    fn total_row(&mut self, left: f32, label: &str, amount: &str) {
        let baseline = self.y + TOTAL.size;
        self.page.text(left, baseline, TOTAL, label);
        self.page
            .right_text(self.faces, self.edges.right, baseline, TOTAL, amount);
        self.y += TOTAL.leading() + 3.0;
    }

    /// Why no tax is charged, and whatever else is to be said.
    fn remarks(&mut self) {
        let document = self.document;
        let taxes = document.taxes.iter().map(|amount| amount.rule.note.as_str());
        let mut said: Vec<&str> = Vec::new();
        for text in taxes.chain(document.notes.iter().map(String::as_str)) {
            if !text.trim().is_empty() && !said.contains(&text) {
                said.push(text);
            }
        }
        for text in said {
            self.paragraph(text, BODY);
            self.y += 4.0;
        }
    }

    fn payment(&mut self) {
        let document = self.document;
        if document.payment_instructions.trim().is_empty() || document.kind == DocumentKind::CreditNote {
            return;
        }
        let due = match document.due_on {
            Some(due_on) if document.open.minor > 0 => {
                format!(
                    // The document does not change when it is settled.
                    "Please pay {} by {}, unless it is paid from your credit or by a saved payment method.",
                    money(document.open, document.currency),
                    day(due_on)
                )
            }
            _ => String::new(),
        };
        let width = self.edges.right - self.edges.left;
        let mut lines = self.faces.wrap(&due, BODY.weight, BODY.size, width);
        lines.extend(
            self.faces
                .wrap(&document.payment_instructions, BODY.weight, BODY.size, width),
        );
        let height = (lines.len() + 1) as f32 * BODY.leading() + mm(4.0);
        self.make_room(height);
        self.y += mm(2.0);
        self.page.text(self.edges.left, self.y + STRONG.size, STRONG, "Payment");
        self.y += STRONG.leading() + 1.0;
        for line in lines {
            self.print(&line, BODY);
        }
    }

    /// Wrapped text over the whole width, which may go on on the next page.
    fn paragraph(&mut self, text: &str, style: Style) {
        let width = self.edges.right - self.edges.left;
        for line in self.faces.wrap(text, style.weight, style.size, width) {
            self.print(&line, style);
        }
    }

    fn print(&mut self, line: &str, style: Style) {
        if self.left_over() < style.leading() {
            self.turn();
        }
        self.page.text(self.edges.left, self.y + style.size, style, line);
        self.y += style.leading();
    }

    /// Every page with who sells at its foot, and which page of how many it is.
    fn numbered(mut self) -> Vec<Page> {
        self.done.push(std::mem::take(&mut self.page));
        let count = self.done.len();
        let (left, right) = (self.edges.left, self.edges.right);
        let seller = &self.document.seller;
        let mut known = vec![seller.name.clone(), seller.registration.clone()];
        if !seller.vat_id.is_empty() {
            known.push(format!("VAT {}", seller.vat_id));
        }
        known.push(seller.email.clone());
        known.retain(|part| !part.is_empty());
        let (known, room) = (known.join("  ·  "), right - left - mm(28.0));
        // Smaller before it is cut: its end is where the seller is written to.
        let mut style = SMALL;
        while self.faces.width(&known, style.weight, style.size) > room && style.size > FOOT_SIZE_MIN {
            style.size -= 0.25;
        }
        let foot = fitted(self.faces, &known, style, room);
        let baseline = HEIGHT - mm(14.0);
        for (page, number) in self.done.iter_mut().zip(1usize..) {
            page.rule(left, right, baseline - mm(4.5), 0.4, Ink::Rule);
            page.text(left, baseline, style, &foot);
            let number = format!("Page {number} of {count}");
            page.right_text(self.faces, right, baseline, SMALL, &number);
        }
        self.done
    }
}

/// Text cut to a width, with dots where it was cut.
fn fitted(faces: &Faces, text: &str, style: Style, width: f32) -> String {
    if faces.width(text, style.weight, style.size) <= width {
        return text.to_owned();
    }
    let mut cut = text.to_owned();
    while cut.pop().is_some() {
        let with_dots = format!("{}…", cut.trim_end());
        if faces.width(&with_dots, style.weight, style.size) <= width {
            return with_dots;
        }
    }
    cut
}

/// `1 February 2026`: no order of numbers to take for another.
fn day(date: Date) -> String {
    date.strftime("%-d %B %Y").to_string()
}

fn days(period: Days) -> String {
    let (first, last) = (period.first, period.last);
    if first == last {
        return day(first);
    }
    if first.year() != last.year() {
        return format!("{} – {}", day(first), day(last));
    }
    if first.month() != last.month() {
        return format!("{} – {}", first.strftime("%-d %B"), day(last));
    }
    format!("{}–{}", first.day(), day(last))
}

/// A decimal with at least so many places, its thousands apart. The minus sign is the plain one, which programs take when it is copied.
fn figure(value: Decimal, places: u32) -> String {
    let mut value = value.normalize();
    if value.scale() < places {
        value.rescale(places);
    }
    let text = value.abs().to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let sign = if value.is_sign_negative() && !value.is_zero() {
        "-"
    } else {
        ""
    };
    if fraction.is_empty() {
        format!("{sign}{grouped}")
    } else {
        format!("{sign}{grouped}.{fraction}")
    }
}

fn plain(amount: Money) -> String {
    figure(amount.to_major(), amount.currency.minor_digits())
}

fn money(amount: Money, currency: Currency) -> String {
    let text = plain(amount);
    match text.strip_prefix('-') {
        Some(size) => format!("-{currency} {size}"),
        None => format!("{currency} {text}"),
    }
}
