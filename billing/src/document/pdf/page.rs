//! A page: what is drawn on it, and drawing it.

use krilla::Document as Pdf;
use krilla::color::rgb;
use krilla::geom::{PathBuilder, Point, Rect};
use krilla::num::NormalizedF32;
use krilla::page::PageSettings;
use krilla::paint::{Fill, FillRule};

use super::PdfError;
use super::text::{Faces, Weight};

/// A4 in points.
pub(super) const WIDTH: f32 = 595.28;
pub(super) const HEIGHT: f32 = 841.89;

/// Points in a millimetre.
const POINTS_PER_MM: f32 = 72.0 / 25.4;

pub(super) fn mm(millimetres: f32) -> f32 {
    millimetres * POINTS_PER_MM
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ink {
    Text,
    /// What explains.
    Muted,
    Rule,
}

impl Ink {
    fn fill(self) -> Fill {
        let color = match self {
            Ink::Text => rgb::Color::new(0x1b, 0x1f, 0x24),
            Ink::Muted => rgb::Color::new(0x5c, 0x64, 0x6e),
            Ink::Rule => rgb::Color::new(0xc9, 0xce, 0xd4),
        };
        Fill {
            paint: color.into(),
            opacity: NormalizedF32::ONE,
            rule: FillRule::NonZero,
        }
    }
}

/// How text looks.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Style {
    pub(super) size: f32,
    pub(super) weight: Weight,
    pub(super) ink: Ink,
}

impl Style {
    pub(super) const fn new(size: f32, weight: Weight, ink: Ink) -> Style {
        Style { size, weight, ink }
    }

    /// From one baseline to the next.
    pub(super) fn leading(self) -> f32 {
        self.size * 1.36
    }
}

enum Drawn {
    Text {
        x: f32,
        baseline: f32,
        style: Style,
        text: String,
    },
    Rule {
        left: f32,
        right: f32,
        y: f32,
        thickness: f32,
        ink: Ink,
    },
}

/// What is on a page, in the order of reading. The origin is the upper left corner.
#[derive(Default)]
pub(super) struct Page(Vec<Drawn>);

impl Page {
    pub(super) fn text(&mut self, x: f32, baseline: f32, style: Style, text: &str) {
        self.0.push(Drawn::Text {
            x,
            baseline,
            style,
            text: text.to_owned(),
        });
    }

    pub(super) fn right_text(&mut self, faces: &Faces, right: f32, baseline: f32, style: Style, text: &str) {
        let width = faces.width(text, style.weight, style.size);
        self.text(right - width, baseline, style, text);
    }

    pub(super) fn rule(&mut self, left: f32, right: f32, y: f32, thickness: f32, ink: Ink) {
        self.0.push(Drawn::Rule {
            left,
            right,
            y,
            thickness,
            ink,
        });
    }

    /// Each text with its left edge, its width and its baseline.
    #[cfg(test)]
    pub(super) fn texts<'a>(&'a self, faces: &'a Faces) -> impl Iterator<Item = (&'a str, f32, f32, f32)> {
        self.0.iter().filter_map(|drawn| match drawn {
            Drawn::Text {
                x,
                baseline,
                style,
                text,
            } => Some((
                text.as_str(),
                *x,
                faces.width(text, style.weight, style.size),
                *baseline,
            )),
            Drawn::Rule { .. } => None,
        })
    }

    pub(super) fn draw(&self, pdf: &mut Pdf, faces: &Faces) -> Result<(), PdfError> {
        let impossible = || PdfError::Write("a page without a size".to_owned());
        let settings = PageSettings::from_wh(WIDTH, HEIGHT).ok_or_else(impossible)?;
        let mut page = pdf.start_page_with(settings);
        let mut surface = page.surface();
        for drawn in &self.0 {
            match drawn {
                Drawn::Text {
                    x,
                    baseline,
                    style,
                    text,
                } => {
                    surface.set_fill(Some(style.ink.fill()));
                    let mut x = *x;
                    for run in faces.runs(text, style.weight) {
                        let start = Point::from_xy(x, *baseline);
                        surface.draw_glyphs(start, &run.glyphs, run.font, &run.text, style.size, false);
                        x += run.advance * style.size;
                    }
                }
                Drawn::Rule {
                    left,
                    right,
                    y,
                    thickness,
                    ink,
                } => {
                    surface.set_fill(Some(ink.fill()));
                    let rect = Rect::from_xywh(*left, *y - thickness / 2.0, right - left, *thickness);
                    let mut path = PathBuilder::new();
                    if let Some(rect) = rect {
                        path.push_rect(rect);
                    }
                    if let Some(path) = path.finish() {
                        surface.draw_path(&path);
                    }
                }
            }
        }
        surface.finish();
        page.finish();
        Ok(())
    }
}
