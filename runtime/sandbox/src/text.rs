//! Texts that a module or its guest wrote, cut to a length that people read.

/// Most bytes of a failure's reason, the guest's own included.
pub(super) const REASON_BYTES_MAX: usize = 1024;

/// Cuts a text to at most `bytes_max` bytes, marking the cut.
pub(super) fn cut(text: &mut String, bytes_max: usize) {
    const MARK: &str = " …";
    if text.len() <= bytes_max {
        return;
    }
    text.truncate(text.floor_char_boundary(bytes_max - MARK.len()));
    text.push_str(MARK);
}

/// One sentence of a text of a parser or compiler that quotes the module: they break lines where values are long.
pub(super) fn short(text: impl AsRef<str>) -> String {
    let mut sentence = text.as_ref().split_whitespace().collect::<Vec<_>>().join(" ");
    cut(&mut sentence, REASON_BYTES_MAX);
    sentence
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_of_several_lines_is_one_sentence() {
        assert_eq!(short("expected [\n    0x0,\n\t0x61,\n]\n"), "expected [ 0x0, 0x61, ]");
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let mut text = "é".repeat(1000);
        cut(&mut text, REASON_BYTES_MAX);
        assert!(text.len() <= REASON_BYTES_MAX && text.ends_with("é …"));
        let mut text = "short".to_owned();
        cut(&mut text, REASON_BYTES_MAX);
        assert_eq!(text, "short");
    }
}
