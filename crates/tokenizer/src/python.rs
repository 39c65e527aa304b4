//! What templates take from Python: `json.dumps`, tests and string methods.

use std::fmt::Write;

use minijinja::value::{Kwargs, Rest, Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};

/// Deepest nesting that `tojson` writes; JSON from outside is at most this deep, too.
const JSON_DEPTH_MAX: usize = 128;
/// Widest indentation that `tojson` writes, so that it cannot multiply the output.
const JSON_INDENT_MAX: usize = 16;
/// Bytes of JSON that one unit of fuel pays for, as minijinja's own filters charge.
const JSON_BYTES_PER_FUEL: usize = 4;

/// The filter `tojson` as transformers defines it: `json.dumps(x, ensure_ascii=False,
/// indent=None, separators=None, sort_keys=False)`, so no HTML escapes and keys in their order.
pub(crate) fn tojson(
    state: &State,
    value: &Value,
    ensure_ascii: Option<Value>,
    indent: Option<Value>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let named = |name| kwargs.get::<Option<Value>>(name);
    let indent = indent.or(named("indent")?);
    let separators = named("separators")?.filter(|v| !v.is_none());
    let ensure_ascii = ensure_ascii.or(named("ensure_ascii")?);
    let sort_keys = named("sort_keys")?;
    kwargs.assert_all_used()?;
    let indent = indent_of(indent)?;
    let (item, key) = match separators {
        Some(pair) => (text_at(&pair, 0)?, text_at(&pair, 1)?),
        None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None => (", ".to_owned(), ": ".to_owned()),
    };
    let style = JsonStyle {
        ascii: ensure_ascii.is_some_and(|v| v.is_true()),
        sort_keys: sort_keys.is_some_and(|v| v.is_true()),
        indent,
        item,
        key,
    };
    let mut json = Json { out: String::new(), style, state, charged: 0 };
    json.value(value, 0)?;
    json.charge()?;
    Ok(json.out)
}

fn invalid(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, what.into())
}

fn text_at(pair: &Value, index: usize) -> Result<String, Error> {
    let text = pair.get_item_by_index(index)?;
    let text = text.as_str().ok_or_else(|| invalid("separators of tojson must be two strings"))?;
    Ok(text.to_owned())
}

/// `indent` as in Python: a number of spaces, a text, or none.
fn indent_of(indent: Option<Value>) -> Result<Option<String>, Error> {
    let Some(indent) = indent.filter(|v| !v.is_none() && !v.is_undefined()) else {
        return Ok(None);
    };
    let text = match (indent.as_str(), i64::try_from(indent.clone())) {
        (Some(text), _) => text.to_owned(),
        (None, Ok(count)) if count <= JSON_INDENT_MAX as i64 => " ".repeat(count.max(0) as usize),
        _ => return Err(invalid(format!("indent of tojson must be at most {JSON_INDENT_MAX}"))),
    };
    if text.len() > JSON_INDENT_MAX {
        return Err(invalid(format!("indent of tojson must be at most {JSON_INDENT_MAX} bytes")));
    }
    Ok(Some(text))
}

struct JsonStyle {
    ascii: bool,
    sort_keys: bool,
    indent: Option<String>,
    item: String,
    key: String,
}

/// A JSON text under construction. It charges the template for what it writes as it goes.
struct Json<'a, 'b, 'c> {
    out: String,
    style: JsonStyle,
    state: &'a State<'b, 'c>,
    charged: usize,
}

impl Json<'_, '_, '_> {
    /// Takes fuel for what was written since the last time.
    fn charge(&mut self) -> Result<(), Error> {
        let units = (self.out.len() - self.charged) / JSON_BYTES_PER_FUEL;
        self.charged += units * JSON_BYTES_PER_FUEL;
        self.state.consume_fuel(units as u64)
    }

    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > JSON_DEPTH_MAX {
            return Err(invalid(format!("tojson of a value nested deeper than {JSON_DEPTH_MAX}")));
        }
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.number(value),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Map => self.map(value, depth)?,
            ValueKind::Seq | ValueKind::Iterable => self.list(value, depth)?,
            kind => return Err(invalid(format!("{kind} cannot be written as JSON"))),
        }
        self.charge()
    }

    fn number(&mut self, value: &Value) {
        match f64::try_from(value.clone()) {
            Ok(float) if !value.is_integer() => self.out.push_str(&json_float(float)),
            // Writing to a string cannot fail.
            _ => {
                let _ = write!(self.out, "{value}");
            }
        }
    }

    fn list(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        self.out.push('[');
        let mut empty = true;
        for item in value.try_iter()? {
            self.separate(empty, depth + 1);
            empty = false;
            self.value(&item, depth + 1)?;
        }
        self.close(empty, depth, ']');
        Ok(())
    }

    fn map(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let mut keys: Vec<Value> = value.try_iter()?.collect();
        if self.style.sort_keys {
            keys.sort();
        }
        self.out.push('{');
        let mut empty = true;
        for key in keys {
            self.separate(empty, depth + 1);
            empty = false;
            match key.kind() {
                ValueKind::String => self.string(key.as_str().unwrap_or_default()),
                ValueKind::None | ValueKind::Bool | ValueKind::Number => {
                    self.out.push('"');
                    self.value(&key, depth + 1)?;
                    self.out.push('"');
                }
                kind => return Err(invalid(format!("{kind} cannot be a key in JSON"))),
            }
            self.out.push_str(&self.style.key);
            self.value(&value.get_item(&key)?, depth + 1)?;
        }
        self.close(empty, depth, '}');
        Ok(())
    }

    fn separate(&mut self, first: bool, depth: usize) {
        if !first {
            self.out.push_str(&self.style.item);
        }
        self.new_line(depth);
    }

    fn close(&mut self, empty: bool, depth: usize, bracket: char) {
        if !empty {
            self.new_line(depth);
        }
        self.out.push(bracket);
    }

    fn new_line(&mut self, depth: usize) {
        if let Some(indent) = &self.style.indent {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(indent.as_str(), depth));
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                c if c < ' ' || (self.style.ascii && c >= '\u{7f}') => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        // Writing to a string cannot fail.
                        let _ = write!(self.out, "\\u{unit:04x}");
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

/// A float as `json.dumps` writes it.
fn json_float(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
    } else {
        float_repr(value)
    }
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

/// The test `sequence`: what has a length and items, which in Python includes strings and dicts.
pub(crate) fn is_sequence(value: &Value) -> bool {
    matches!(
        value.kind(),
        ValueKind::Seq | ValueKind::String | ValueKind::Map | ValueKind::Bytes | ValueKind::Undefined
    )
}

/// The test `iterable`: what a loop can go over, which none and namespaces are not.
pub(crate) fn is_iterable(value: &Value) -> bool {
    match value.kind() {
        ValueKind::Seq | ValueKind::String | ValueKind::Iterable | ValueKind::Bytes => true,
        ValueKind::Undefined => true,
        ValueKind::Map => is_mapping(value),
        _ => false,
    }
}

/// The test `mapping`: a namespace has attributes and no items.
pub(crate) fn is_mapping(value: &Value) -> bool {
    let namespace = || value.as_object().is_some_and(|object| object.type_name().ends_with("Namespace"));
    value.kind() == ValueKind::Map && !namespace()
}

/// Python's methods on values: a few more string methods than minijinja-contrib has, then its.
pub(crate) fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    if let Some(result) = value.as_str().and_then(|text| string_method(text, name, args)) {
        return result;
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args)
}

fn string_method(text: &str, name: &str, args: &[Value]) -> Option<Result<Value, Error>> {
    Some(match name {
        "removeprefix" => one_text(args).map(|p| text.strip_prefix(p).unwrap_or(text).into()),
        "removesuffix" => one_text(args).map(|s| text.strip_suffix(s).unwrap_or(text).into()),
        "partition" => one_text(args).map(|separator| match text.split_once(separator) {
            Some((before, after)) => three(before, separator, after),
            None => three(text, "", ""),
        }),
        "rpartition" => one_text(args).map(|separator| match text.rsplit_once(separator) {
            Some((before, after)) => three(before, separator, after),
            None => three("", "", text),
        }),
        "rsplit" => rsplit(text, args),
        "casefold" => no_args(args).map(|()| text.to_lowercase().into()),
        "index" => one_text(args).and_then(|part| match text.find(part) {
            Some(byte) => Ok(Value::from(text[..byte].chars().count())),
            None => Err(invalid("substring not found")),
        }),
        _ => return None,
    })
}

fn three(before: &str, separator: &str, after: &str) -> Value {
    Value::from(Tuple::from(vec![before.into(), separator.into(), after.into()]))
}

fn one_text(args: &[Value]) -> Result<&str, Error> {
    let (text,): (&str,) = from_args(args)?;
    Ok(text)
}

fn no_args(args: &[Value]) -> Result<(), Error> {
    let Rest(rest): Rest<Value> = from_args::<(Rest<Value>,)>(args)?.0;
    if rest.is_empty() { Ok(()) } else { Err(Error::from(ErrorKind::TooManyArguments)) }
}

fn rsplit(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (separator, count): (Option<&str>, Option<i64>) = from_args(args)?;
    // A negative count is Python's "no limit".
    let limit = count.and_then(|n| usize::try_from(n).ok()).map_or(usize::MAX, |n| n + 1);
    let mut parts: Vec<String> = match separator {
        Some("") => return Err(invalid("empty separator")),
        Some(separator) => text.rsplitn(limit, separator).map(str::to_owned).collect(),
        None => rsplit_whitespace(text, limit),
    };
    parts.reverse();
    Ok(Value::from(parts))
}

/// The words of `text` from the last; the rest before the last allowed split stays one piece.
fn rsplit_whitespace(text: &str, limit: usize) -> Vec<String> {
    let mut parts = Vec::new();
    let mut rest = text.trim_end();
    while !rest.is_empty() {
        let cut = if parts.len() + 1 < limit { rest.rfind(char::is_whitespace) } else { None };
        let Some(cut) = cut else {
            parts.push(rest.to_owned());
            break;
        };
        let after = cut + rest[cut..].chars().next().map_or(0, char::len_utf8);
        parts.push(rest[after..].to_owned());
        rest = rest[..cut].trim_end();
    }
    parts
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
        assert_eq!(json_float(f64::NEG_INFINITY), "-Infinity");
        assert_eq!(json_float(f64::NAN), "NaN");
    }

    #[test]
    fn rsplit_as_in_python() {
        let run = |text: &str, args: &[Value]| rsplit(text, args).unwrap().to_string();
        assert_eq!(run("a,b,c", &[",".into(), 1.into()]), "['a,b', 'c']");
        assert_eq!(run(" a  b c ", &[]), "['a', 'b', 'c']");
        assert_eq!(run(" a  b c ", &[Value::from(()), 1.into()]), "[' a  b', 'c']");
    }
}
