//! What is found in a body, by one pointer and by many.

use super::*;
use proptest::prelude::*;
use serde_json::Value;

fn at_pointer<'b>(body: &'b [u8], pointer: &str) -> Result<Found<'b>, NotJson> {
    let mut pointers = Pointers::default();
    let number = pointers.add(pointer);
    Body::new(body, &pointers).at(number)
}

#[track_caller]
fn check(body: &str, pointer: &str, expected: Option<&str>) {
    assert_eq!(at_pointer(body.as_bytes(), pointer).unwrap().as_deref(), expected, "{pointer} in {body}");
}

#[test]
fn pointers_yield_strings_numbers_and_booleans() {
    check(r#"{"user":"ada"}"#, "/user", Some("ada"));
    check(r#"{"user":"a\u0064a"}"#, "/user", Some("ada"));
    check(r#"{"a":{"b":[1,{"c":true}]}}"#, "/a/b/1/c", Some("true"));
    check(r#"{"n":-12}"#, "/n", Some("-12"));
    check(r#"{"n":1.5}"#, "/n", Some("1.5"));
    check(r#"{"n":15e-1}"#, "/n", Some("1.5"));
    check(r#"{"n": 184467440737095516170001 }"#, "/n", Some("184467440737095516170001"));
    check(r#"{"a/b":"x","m~n":"y"}"#, "/a~1b", Some("x"));
    check(r#"{"a/b":"x","m~n":"y"}"#, "/m~0n", Some("y"));
    check(r#""whole""#, "", Some("whole"));
}

#[test]
fn what_is_not_a_scalar_is_absent() {
    check(r#"{"user":null}"#, "/user", None);
    check(r#"{"user":{}}"#, "/user", None);
    check(r#"{"user":[]}"#, "/user", None);
    check(r#"{}"#, "/user", None);
    check(r#"[1]"#, "/5", None);
    check(r#"[1]"#, "/x", None);
    check(r#"[1,2]"#, "/01", None);
    check(r#"[1,2]"#, "/+1", None);
}

#[test]
fn a_broken_body_is_an_error_even_after_the_field() {
    let error = at_pointer(br#"{"user":"ada""#, "/user").unwrap_err().to_string();
    assert!(error.contains("the body is not JSON: EOF"), "{error}");
    assert!(at_pointer(br#"{"user":"ada"} x"#, "/user").is_err());
    assert!(at_pointer(b"\xff", "/user").is_err());
}

/// What RFC 6901 says of the tree, as text.
fn of_tree(value: &Value, pointer: &str) -> Option<String> {
    value.pointer(pointer).and_then(|found| match found {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(found.to_string()),
        _ => None,
    })
}

/// JSON as publishers write it: equal names, escapes and room between the tokens included.
fn json() -> impl Strategy<Value = String> {
    let text = || {
        proptest::collection::vec(
            prop_oneof!["[a-c]", Just("~".into()), Just(r#"\""#.into()), Just(r"\u00e9".into())],
            0..3,
        )
        .prop_map(|parts: Vec<String>| format!("\"{}\"", parts.concat()))
    };
    let name = prop_oneof![4 => "\"[ab~/]{0,2}\"", 1 => Just(r#""\u0061""#.to_owned())];
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|value| value.to_string()),
        any::<i32>().prop_map(|value| value.to_string()),
        (1..99).prop_map(|value| format!("{value}5e-1")),
        text(),
    ];
    leaf.prop_recursive(4, 32, 4, move |inner| {
        let pair = (name.clone(), inner.clone()).prop_map(|(name, value)| format!("{name} :{value}"));
        prop_oneof![
            proptest::collection::vec(inner, 0..4).prop_map(|values| format!("[{}]", values.join(" ,"))),
            proptest::collection::vec(pair, 0..5).prop_map(|pairs| format!("{{{}}}", pairs.join(",\n"))),
        ]
    })
}

fn pointers() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec("(/(a|b|aa|0|1|2|~0|~1|01)?){0,4}", 1..8)
}

/// JSON with some bytes put in, taken out or changed: broken in every way, or not at all.
fn mangled() -> impl Strategy<Value = Vec<u8>> {
    let change = (
        any::<proptest::sample::Index>(),
        0..3u8,
        prop_oneof![
            4 => proptest::sample::select(br#"{}[]",:\0919eE.-tn u"#.to_vec()), 1 => any::<u8>()
        ],
    );
    (json(), proptest::collection::vec(change, 0..3)).prop_map(|(body, changes)| {
        let mut body = body.into_bytes();
        for (at, what, byte) in changes {
            let at = at.index(body.len() + 1);
            match what {
                0 => body.insert(at, byte),
                1 if at < body.len() => body[at] = byte,
                _ => drop(body.splice(at..(at + 1).min(body.len()), [])),
            }
        }
        body
    })
}

/// As it was found by whoever looked for one pointer at a time.
fn each_alone<'b>(body: &'b [u8], wanted: &[String]) -> Vec<Result<Found<'b>, NotJson>> {
    wanted.iter().map(|pointer| at_pointer(body, pointer)).collect()
}

fn together<'b>(body: &'b [u8], wanted: &[String]) -> Vec<Result<Found<'b>, NotJson>> {
    let mut pointers = Pointers::default();
    let numbers: Vec<usize> = wanted.iter().map(|pointer| pointers.add(pointer)).collect();
    let mut body = Body::new(body, &pointers);
    numbers.into_iter().map(|number| body.at(number)).collect()
}

#[test]
fn a_pointer_may_end_where_another_goes_on() {
    let wanted = ["/user".to_owned(), "/user/id".to_owned(), String::new()];
    let found = |body: &str| -> Vec<Option<String>> {
        together(body.as_bytes(), &wanted).into_iter().map(|found| found.unwrap().map(Cow::into_owned)).collect()
    };
    assert_eq!(found(r#"{"user":"ada"}"#), [Some("ada".to_owned()), None, None]);
    assert_eq!(found(r#"{"user":{"id":"ada"}}"#), [None, Some("ada".to_owned()), None]);
    assert_eq!(found(r#"{"user":{"id":"ada"},"user":1}"#), [Some("1".to_owned()), None, None]);
    assert_eq!(found("7"), [None, None, Some("7".to_owned())]);
}

#[test]
fn what_is_wrong_where_one_pointer_leads_does_not_concern_the_others() {
    let wanted = ["/name".to_owned(), "/id".to_owned(), "/n/x".to_owned()];
    // A surrogate without its other half, bytes that are no text, a number that no float holds.
    for value in [&br#""\ud800""#[..], b"\"\xff\"", b"1e999"] {
        let body = |name: &str| [format!(r#"{{"id":"i","{name}":"#).as_bytes(), value, b"}"].concat();
        for name in ["name", "n", "other"] {
            let body = body(name);
            let found = together(&body, &wanted);
            assert_eq!(found, each_alone(&body, &wanted));
            assert_eq!(found[1], Ok(Some("i".into())));
        }
    }
}

#[test]
fn a_pointer_that_leads_very_deep_does_not_concern_the_others() {
    let wanted = ["/a".repeat(200), "/id".to_owned(), "/a".to_owned()];
    let body = format!(r#"{{"id":"i","a":{}{}}}"#, r#"{"a":"#.repeat(200) + "1", "}".repeat(200));
    let found = together(body.as_bytes(), &wanted);
    assert!(found[0].as_ref().is_err_and(|error| error.to_string().contains("recursion limit")));
    assert_eq!(found[1..], [Ok(Some("i".into())), Ok(None)]);
}

proptest! {
    #[test]
    fn one_pass_agrees_with_the_json_tree(body in json(), wanted in pointers()) {
        let tree: Value = serde_json::from_str(&body).unwrap();
        let found = together(body.as_bytes(), &wanted);
        for (pointer, found) in wanted.iter().zip(found) {
            prop_assert_eq!(found.unwrap().map(Cow::into_owned), of_tree(&tree, pointer), "{} in {}", pointer, body);
        }
    }

    #[test]
    fn one_pass_finds_what_each_pointer_finds_alone(body in mangled(), wanted in pointers()) {
        prop_assert_eq!(together(&body, &wanted), each_alone(&body, &wanted));
    }

    #[test]
    fn any_bytes_yield_or_fail_without_panic(body in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = at_pointer(&body, "/a/0");
    }
}
