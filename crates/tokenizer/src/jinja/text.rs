//! Values as text: Python's `str` and `repr`.

use std::borrow::Cow;
use std::fmt::Write;

use minijinja::value::{Object, Value, ValueKind};
use minijinja::{AutoEscape, Error, Output, State};

use super::objects::{Generator, Range, View, as_pair};
use super::python::is_mapping;
use super::{charge, invalid};

/// Writes a value where `{{ }}` stands: as Python's `str`.
pub(crate) fn write_value(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    let text = text_of(state, value)?;
    let plain = value.is_safe() || matches!(state.auto_escape(), AutoEscape::None);
    out.write_str(&if plain { text } else { escaped(&text).into() }).map_err(Error::from)
}

/// Python's `str`, for reading.
pub(super) fn text_of<'a>(state: &State, value: &'a Value) -> Result<Cow<'a, str>, Error> {
    match value.as_str() {
        Some(text) => Ok(text.into()),
        None if value.is_undefined() => Ok("".into()),
        None => repr_of(state, value).map(Cow::from),
    }
}

/// Python's `str`.
pub(super) fn str_of(state: &State, value: &Value) -> Result<String, Error> {
    let text = text_of(state, value)?;
    charge(state, text.len())?;
    Ok(text.into_owned())
}

/// Python's `repr`.
pub(super) fn repr_of(state: &State, value: &Value) -> Result<String, Error> {
    let mut out = String::new();
    write_repr(&mut out, state, value)?;
    Ok(out)
}

fn write_repr(out: &mut String, state: &State, value: &Value) -> Result<(), Error> {
    // What is small in memory can be huge as text.
    state.consume_fuel(1)?;
    match value.kind() {
        ValueKind::Undefined => out.push_str("Undefined"),
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number if value.is_integer() => push(out, value),
        ValueKind::Number => out.push_str(&float_repr(f64::try_from(value.clone())?)),
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            charge(state, text.len())?;
            match value.is_safe() {
                true => return Err(invalid("a text that is marked as safe has no place in a list's text")),
                false => text_repr(out, text, false),
            }
        }
        ValueKind::Map if is_mapping(value) => write_map(out, state, value)?,
        ValueKind::Seq if value.is_tuple() => {
            write_items(out, state, value, "(", if value.len() == Some(1) { ",)" } else { ")" })?;
        }
        ValueKind::Seq | ValueKind::Iterable => write_object(out, state, value)?,
        kind => return Err(invalid(format!("{kind} has no text; write its fields"))),
    }
    Ok(())
}

fn push(out: &mut String, value: impl std::fmt::Display) {
    // Writing to a string cannot fail.
    let _ = write!(out, "{value}");
}

fn write_object(out: &mut String, state: &State, value: &Value) -> Result<(), Error> {
    if let Some(pair) = as_pair(value) {
        return write_items(out, state, &pair, "(", ")");
    }
    if let Some(range) = value.downcast_object_ref::<Range>() {
        push(out, range);
        return Ok(());
    }
    if let Some(view) = value.downcast_object_ref::<View>() {
        push(out, format_args!("{}(", view.name()));
        write_items(out, state, value, "[", "])")?;
        return Ok(());
    }
    match value.downcast_object_ref::<Generator>() {
        Some(_) => Err(invalid("a generator has no text; put `| list` behind the filter")),
        None => write_items(out, state, value, "[", "]"),
    }
}

fn write_items(out: &mut String, state: &State, value: &Value, open: &str, close: &str) -> Result<(), Error> {
    out.push_str(open);
    for (index, item) in value.try_iter()?.enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        write_repr(out, state, &item)?;
    }
    out.push_str(close);
    Ok(())
}

fn write_map(out: &mut String, state: &State, value: &Value) -> Result<(), Error> {
    out.push('{');
    for (index, key) in value.try_iter()?.enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        write_repr(out, state, &key)?;
        out.push_str(": ");
        write_repr(out, state, &value.get_item(&key)?)?;
    }
    out.push('}');
    Ok(())
}

/// A text between quotes, as Python's `repr`, or its `ascii`.
pub(super) fn text_repr(out: &mut String, text: &str, ascii: bool) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => out.extend(['\\', c]),
            c if is_printable(c) && (c.is_ascii() || !ascii) => out.push(c),
            c => match u32::from(c) {
                code @ 0..=0xff => push(out, format_args!("\\x{code:02x}")),
                code @ 0x100..=0xffff => push(out, format_args!("\\u{code:04x}")),
                code => push(out, format_args!("\\U{code:08x}")),
            },
        }
    }
    out.push(quote);
}

/// Python's `isprintable`: Rust has the same table, but shows it only here.
pub(super) fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return (' '..='~').contains(&c);
    }
    // Behind another character, lest one that combines counts.
    let text = ['a', c].into_iter().collect::<String>();
    let mut escaped = text.escape_debug();
    escaped.next();
    escaped.next() != Some('\\')
}

/// What HTML has other characters for.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// A float as Python's `repr`: the shortest digits that read back the same, with an exponent
/// below 1e-4 and from 1e16 on.
pub(crate) fn float_repr(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = format!("{value}");
        if plain.contains('.') { plain } else { plain + ".0" }
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{digits}e{sign}{:02}", exponent.abs())
    }
}

/// Objects that are one type of Python's each.
pub(super) fn is<T: Object + 'static>(value: &Value) -> bool {
    value.downcast_object_ref::<T>().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_read_as_in_python() {
        for (value, expected) in [
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e-5, "1.5e-05"),
            (0.0001, "0.0001"),
            (1.2345678901234567e200, "1.2345678901234567e+200"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(float_repr(value), expected);
        }
    }

    #[test]
    fn texts_are_quoted_as_in_python() {
        for (text, expected) in [
            ("it's", "\"it's\""),
            ("a\"b'", "'a\"b\\''"),
            ("\u{0}\u{a0}\u{2028}\u{e000}", "'\\x00\\xa0\\u2028\\ue000'"),
            ("\u{301}\u{10ffff}", "'\u{301}\\U0010ffff'"),
        ] {
            let mut out = String::new();
            text_repr(&mut out, text, false);
            assert_eq!(out, expected);
        }
    }
}
