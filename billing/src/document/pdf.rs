//! Documents on paper: A4, as PDF/A-2u, which archives ask for.
//!
//! * The text is text: it can be selected, searched and copied, and the fonts it uses are embedded in part.
//! * The buyer's address lies in the window of a DIN lang envelope (DIN 5008, form B).
//! * Lines that do not fit go on on the next page under the same header; the totals stay together.
//! * The same document gives the same bytes: ids and dates come from the document, nothing from the machine.
//!
//! Latin, Greek and Cyrillic letters are Noto Sans, arrows and mathematical signs Noto Sans Math; Chinese, Japanese and Korean ones (JIS X 0208, GB 2312, KS X 1001) Droid
//! Sans Fallback, in its one weight. Other characters, among them Arabic, Hebrew, Thai and the scripts of India, which need
//! shaping, become a question mark; the XML has them as they are.

mod layout;
mod page;
mod text;

use jiff::civil::Date;
use krilla::configure::{Archival, ConfigurationBuilder};
use krilla::metadata::{DateTime, Metadata};
use krilla::{Document as Pdf, SerializeSettings};

use super::Document;

/// Why a document was not made into a PDF.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PdfError {
    #[error("read the embedded font {0}")]
    Font(&'static str),
    #[error("a document has at most {max} pages, and {number} would have {pages}")]
    Pages { number: String, pages: usize, max: usize },
    #[error("write the PDF: {0}")]
    Write(String),
}

schemas::error_codes! {
    PdfError: "pdf";
    of []
    source []
    Refused: Pages = "pages";
    Fault: Font = "font", Write = "write";
}

/// Pages of one document at most: about 40,000 lines.
const MAX_PAGES: usize = 1000;

/// The document as a PDF file.
///
/// # Errors
/// When it is too long.
pub fn pdf(document: &Document) -> Result<Vec<u8>, PdfError> {
    let faces = text::Faces::load()?;
    let pages = layout::pages(document, &faces);
    if pages.len() > MAX_PAGES {
        return Err(PdfError::Pages {
            number: document.number.clone(),
            pages: pages.len(),
            max: MAX_PAGES,
        });
    }
    let configuration = ConfigurationBuilder::new()
        .with_archival_validator(Archival::A2_U)
        .finish()
        .map_err(|error| PdfError::Write(format!("{error:?}")))?;
    let mut pdf = Pdf::new_with(SerializeSettings {
        configuration,
        // Structure for screen readers is not written; the order of the text is the order of reading.
        enable_tagging: false,
        ..SerializeSettings::default()
    });
    pdf.set_metadata(
        Metadata::new()
            .title(format!("{} {}", document.kind.title(), document.number))
            .authors(vec![document.seller.name.clone()])
            .creator("EZSCALE".to_owned())
            .language("en".to_owned())
            .document_id(format!("{} {}", document.seller.name, document.number))
            .creation_date(day(document.issued_on)),
    );
    for page in &pages {
        page.draw(&mut pdf, &faces)?;
    }
    pdf.finish().map_err(|error| PdfError::Write(format!("{error:?}")))
}

fn day(date: Date) -> DateTime {
    let part = |value: i8| u8::try_from(value).unwrap_or(1);
    DateTime::new(u16::try_from(date.year()).unwrap_or_default())
        .month(part(date.month()))
        .day(part(date.day()))
        .hour(0)
        .minute(0)
        .second(0)
        .utc_offset_hour(0)
        .utc_offset_minute(0)
}

#[cfg(test)]
mod tests;
