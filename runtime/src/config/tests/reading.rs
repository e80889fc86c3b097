//! Files that are none, are cut off, or come from another editor.

use super::{Files, handler};
use crate::config::source::unreadable;
use crate::config::{FILE_NAME, Overrides, load};

#[test]
fn a_file_that_cannot_be_read_says_how_to_name_it() {
    let files = Files::new();
    let shown = load(&files.path("gone.toml"), &Overrides::default()).unwrap_err().to_string();
    assert!(shown.contains("failed to read the settings: No such file") && shown.contains("--config"), "{shown}");
}

/// What a person sees for a file of these bytes.
fn shown_of_file(files: &Files, bytes: &[u8]) -> String {
    let file = files.path(FILE_NAME);
    std::fs::write(&file, bytes).unwrap();
    let shown = load(&file, &Overrides::default()).unwrap_err().to_string();
    shown.replace(files.0.path().to_str().unwrap(), "DIR")
}

#[test]
fn a_mark_of_byte_order_and_carriage_returns_do_not_move_the_place() {
    let files = Files::new();
    std::fs::write(files.path(FILE_NAME), "\u{feff}namespace = \"shop\"\r\n[http]\r\n").unwrap();
    let loaded = load(&files.path(FILE_NAME), &Overrides::default()).unwrap();
    assert_eq!(loaded.settings.namespace.as_str(), "shop");
    let shown = shown_of_file(&files, "\u{feff}namespace = 5\r\n".as_bytes());
    assert!(shown.contains(":1:13\n1 | namespace = 5\n  |             ^\n"), "{shown}");
    let shown = shown_of_file(&files, b"namespace = \"a\"\r\n[http]\r\nlisten = 5\r\n");
    assert!(shown.contains(":3:10\n3 | listen = 5\n  |          ^\n"), "{shown}");
}

#[test]
fn a_file_that_is_none_is_refused_with_what_to_do() {
    let files = Files::new();
    let rest = "expected: a TOML file of at most 1048576 bytes with at least one setting\n  hint: ";
    for (bytes, message, hint) in [
        (&b""[..], "the settings are empty", "was it cut off?"),
        (b"\xef\xbb\xbf\n# later\n", "the settings are empty", "at least its `namespace`"),
        (b"a = 1\nb = \xff", "the settings are not UTF-8: line 2 has a byte that is no text", "save it as UTF-8"),
        (b"\xff\xfea\0", "the settings are not UTF-8: line 1 has a byte", "save it as UTF-8"),
        (&vec![b'#'; 10 << 20], "the settings are larger than 1048576 bytes", "is this the right file?"),
    ] {
        let shown = shown_of_file(&files, bytes);
        assert!(shown.starts_with(&format!("error: {message}")), "{shown}");
        assert!(shown.contains(rest) && shown.contains(hint) && shown.contains("--> DIR/sluicebox.toml\n"), "{shown}");
    }
    let shown = load(files.0.path(), &Overrides::default()).unwrap_err().to_string();
    assert!(shown.contains("failed to read the settings: Is a directory") && shown.contains("such as sluicebox.toml"));
    // A user who may do everything can read everything, so the system's answer is made here.
    let denied = std::io::Error::from_raw_os_error(13);
    let shown = unreadable(&files.path(FILE_NAME), &denied).to_string();
    assert!(shown.contains("Permission denied") && shown.contains("leave to read it"), "{shown}");
}

#[test]
fn settings_that_were_cut_anywhere_are_refused_or_whole_in_what_is_left() {
    let files = Files::new();
    let text = handler("retry = { attempts = 3 }\n[http]\nlisten = \"127.0.0.1:80\"");
    for end in 0..text.len() {
        let cut = &text[..end];
        match files.parse(cut, &Overrides::default()) {
            Ok(loaded) => assert_eq!(loaded.settings.handlers.len(), 1, "{cut}"),
            Err(problems) => assert!(problems.to_string().contains("  hint: "), "{cut}:\n{problems}"),
        }
    }
}
