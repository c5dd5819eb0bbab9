//! Texts in CSV, which spreadsheet programs open.
//!
//! Names, notes and addresses come from customers. A cell that begins like a formula would be computed by the program of whoever
//! opens the file: it could read other cells and send them elsewhere. So every writer of CSV passes its texts through [`inert`],
//! and its numbers not.

/// A text that a spreadsheet would take for a formula, marked as text by an apostrophe before it.
pub fn inert(text: String) -> String {
    // In full width too: some programs take those for the same.
    if text.starts_with(['=', '+', '-', '@', '\t', '\r', '＝', '＋', '－', '＠']) {
        format!("'{text}")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_formula_is_marked_as_text() {
        for text in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "＝1+1", "＠SUM(A1)"] {
            assert_eq!(inert(text.to_owned()), format!("'{text}"));
        }
        for text in ["", "Acme", "1-2", "a=b", " =1", "'=1"] {
            assert_eq!(inert(text.to_owned()), text);
        }
    }
}
