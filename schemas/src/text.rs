//! Texts of one line that people and devices name things by: names, descriptions, reasons.
//!
//! What cannot be seen in a text can make it look like another one, or turn around what stands beside it: control characters, line
//! and paragraph separators, marks and overrides of direction (Unicode Standard Annex 9), characters without width.

/// Whether a character may stand in a text of one line.
pub fn is_plain(character: char) -> bool {
    let is_unseen = matches!(
        character,
        '\u{061C}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{2069}' | '\u{FEFF}'
    );
    !is_unseen && !character.is_control()
}

/// Whether a text has one line of characters that can be seen, or spaces.
pub fn is_plain_text(text: &str) -> bool {
    text.chars().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_not_plain() {
        for plain in [
            "",
            "Müller & Söhne",
            "株式会社",
            "شركة",
            "xe-0/0/1.0",
            "a\u{AD}b",
            "Zoë 👩",
        ] {
            assert!(is_plain_text(plain), "{plain:?}");
        }
        let unseen = [
            '\0', '\n', '\t', '\u{1b}', '\u{7f}', '\u{9b}', '\u{061C}', '\u{200B}', '\u{200D}', '\u{200F}', '\u{2028}',
            '\u{2029}', '\u{202A}', '\u{202E}', '\u{2060}', '\u{2066}', '\u{2069}', '\u{FEFF}',
        ];
        for character in unseen {
            assert!(!is_plain_text(&format!("a{character}b")), "{character:?}");
        }
    }
}
