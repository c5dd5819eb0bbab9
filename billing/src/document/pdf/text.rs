//! Letters: which font has them, how wide they are, where lines break.

use krilla::text::{Font, GlyphId, KrillaGlyph};
use schemas::text::is_plain;
use skrifa::MetadataProvider as _;
use skrifa::charmap::Charmap;
use skrifa::instance::{LocationRef, Size};
use skrifa::metrics::GlyphMetrics;

use super::PdfError;

static REGULAR: &[u8] = include_bytes!("../../../assets/NotoSans-Regular.ttf");
static BOLD: &[u8] = include_bytes!("../../../assets/NotoSans-Bold.ttf");
static SYMBOLS: &[u8] = include_bytes!("../../../assets/NotoSansMath.ttf");
static FALLBACK: &[u8] = include_bytes!("../../../assets/DroidSansFallback.ttf");

/// What stands for a character that no font has.
const SUBSTITUTE: char = '?';

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Weight {
    Regular,
    Bold,
}

/// One font: what the PDF embeds, and what text is measured with.
struct Face {
    font: Font,
    charmap: Charmap<'static>,
    metrics: GlyphMetrics<'static>,
    units_per_em: f32,
}

impl Face {
    fn load(name: &'static str, data: &'static [u8]) -> Result<Face, PdfError> {
        let font = Font::new(data.into(), 0).ok_or(PdfError::Font(name))?;
        let read = skrifa::FontRef::new(data).map_err(|_| PdfError::Font(name))?;
        let units_per_em = read.metrics(Size::unscaled(), LocationRef::default()).units_per_em;
        Ok(Face {
            font,
            charmap: read.charmap(),
            metrics: read.glyph_metrics(Size::unscaled(), LocationRef::default()),
            units_per_em: f32::from(units_per_em),
        })
    }

    fn glyph(&self, c: char) -> Option<skrifa::GlyphId> {
        self.charmap.map(c).filter(|glyph| glyph.to_u32() != 0)
    }

    /// In parts of the font's size.
    fn advance(&self, glyph: skrifa::GlyphId) -> f32 {
        self.metrics.advance_width(glyph).unwrap_or_default() / self.units_per_em
    }
}

/// The fonts of a document.
pub(super) struct Faces {
    regular: Face,
    bold: Face,
    symbols: Face,
    fallback: Face,
}

/// Text in one font.
pub(super) struct Run {
    pub(super) font: Font,
    pub(super) text: String,
    pub(super) glyphs: Vec<KrillaGlyph>,
    /// In parts of the font's size.
    pub(super) advance: f32,
}

impl Faces {
    pub(super) fn load() -> Result<Faces, PdfError> {
        Ok(Faces {
            regular: Face::load("Noto Sans", REGULAR)?,
            bold: Face::load("Noto Sans Bold", BOLD)?,
            symbols: Face::load("Noto Sans Math", SYMBOLS)?,
            fallback: Face::load("Droid Sans Fallback", FALLBACK)?,
        })
    }

    /// The font that has a character, and what is printed for it.
    fn find(&self, c: char, weight: Weight) -> (&Face, char, skrifa::GlyphId) {
        let first = match weight {
            Weight::Regular => &self.regular,
            Weight::Bold => &self.bold,
        };
        let c = if c.is_whitespace() { ' ' } else { c };
        for face in [first, &self.symbols, &self.fallback] {
            if let Some(glyph) = face.glyph(c) {
                return (face, c, glyph);
            }
        }
        // Both weights have the substitute; without it, the font's own box for missing characters would show.
        (first, SUBSTITUTE, first.glyph(SUBSTITUTE).unwrap_or_default())
    }

    /// Text in as few runs of one font as it takes.
    pub(super) fn runs(&self, text: &str, weight: Weight) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for c in printable(text) {
            let (face, c, glyph) = self.find(c, weight);
            if runs.last().is_none_or(|run| run.font != face.font) {
                runs.push(Run {
                    font: face.font.clone(),
                    text: String::new(),
                    glyphs: Vec::new(),
                    advance: 0.0,
                });
            }
            let Some(run) = runs.last_mut() else { continue };
            let start = run.text.len();
            run.text.push(c);
            let advance = face.advance(glyph);
            let range = start..run.text.len();
            let id = GlyphId::new(glyph.to_u32());
            run.glyphs
                .push(KrillaGlyph::new(id, advance, 0.0, 0.0, 0.0, range, None));
            run.advance += advance;
        }
        runs
    }

    /// How wide a text is in a size, in points.
    pub(super) fn width(&self, text: &str, weight: Weight, size: f32) -> f32 {
        let mut width = 0.0;
        for c in printable(text) {
            let (face, _, glyph) = self.find(c, weight);
            width += face.advance(glyph);
        }
        width * size
    }

    /// Breaks text into lines that are no wider than `width`: at spaces, between ideographs, and, where a word alone is
    /// wider, anywhere.
    pub(super) fn wrap(&self, text: &str, weight: Weight, size: f32, width: f32) -> Vec<String> {
        let mut lines = Vec::new();
        for paragraph in text.lines() {
            let mut line = String::new();
            for piece in pieces(paragraph) {
                let longer = format!("{line}{piece}");
                if self.width(longer.trim_end(), weight, size) <= width {
                    line = longer;
                    continue;
                }
                if !line.trim().is_empty() {
                    lines.push(line.trim_end().to_owned());
                }
                line = self.broken(piece.trim_start(), weight, size, width, &mut lines);
            }
            if !line.trim().is_empty() {
                lines.push(line.trim_end().to_owned());
            }
        }
        lines
    }

    /// Puts what does not fit of a word into lines of its own, and gives back the rest.
    fn broken(&self, word: &str, weight: Weight, size: f32, width: f32, lines: &mut Vec<String>) -> String {
        let mut line = String::new();
        for c in word.chars() {
            line.push(c);
            if line.chars().count() > 1 && self.width(line.trim_end(), weight, size) > width {
                line.pop();
                lines.push(std::mem::take(&mut line));
                line.push(c);
            }
        }
        line
    }
}

/// Without what has no place on paper: control characters, marks of direction, joiners.
fn printable(text: &str) -> impl Iterator<Item = char> + '_ {
    let is_unseen = |c: char| (!is_plain(c) && !c.is_whitespace()) || matches!(c, '\u{AD}' | '\u{FE00}'..='\u{FE0F}');
    text.chars().filter(move |&c| !is_unseen(c))
}

/// Pieces between which a line may end: words with the space behind them, single ideographs.
fn pieces(text: &str) -> Vec<&str> {
    let is_ideograph =
        |c: char| matches!(c, '\u{2E80}'..='\u{9FFF}' | '\u{AC00}'..='\u{D7AF}' | '\u{F900}'..='\u{FAFF}');
    let mut pieces = Vec::new();
    let mut start = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let end = at + c.len_utf8();
        let Some(&(_, next)) = chars.peek() else { break };
        // Closing punctuation stays with what it closes.
        let next_closes = matches!(next, '、' | '。' | '）' | '」' | '・' | 'ー');
        let is_break = (c.is_whitespace() && c != '\u{A0}' && !next.is_whitespace())
            || ((is_ideograph(c) || is_ideograph(next)) && !next.is_whitespace() && !next_closes);
        if is_break {
            pieces.push(&text[start..end]);
            start = end;
        }
    }
    if start < text.len() {
        pieces.push(&text[start..]);
    }
    pieces
}
