//! What templates take from Python: `json.dumps`, and tests for kinds of values.

use std::fmt::Write;

use minijinja::value::ValueKind;
use minijinja::{Error, State, Value};

use super::{bind, float_repr, invalid, is_list};

/// Deepest nesting that `tojson` writes; JSON from outside is at most this deep, too.
const JSON_DEPTH_MAX: usize = 128;
/// Widest indentation that `tojson` writes, so that it cannot multiply the output.
const JSON_INDENT_MAX: usize = 16;
/// Bytes of JSON that one unit of fuel pays for, as minijinja's own filters charge.
const JSON_BYTES_PER_FUEL: usize = 4;

/// The filter `tojson` as transformers defines it: `json.dumps(x, ensure_ascii=False,
/// indent=None, separators=None, sort_keys=False)`, so no HTML escapes and keys in their order.
pub(crate) fn tojson(state: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    let names = ["value", "ensure_ascii", "indent", "separators", "sort_keys"];
    let [value, ensure_ascii, indent, separators, sort_keys] = bind(args, names, 1)?;
    let (value, state) = (&value.unwrap_or_default(), &*state);
    let separators = separators.filter(|v| !v.is_none());
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
    Ok(json.out.into())
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
            ValueKind::Seq | ValueKind::Iterable if is_list(value) => self.list(value, depth)?,
            ValueKind::Seq | ValueKind::Iterable => {
                return Err(invalid("generators, ranges and views cannot be written as JSON; use `| list`"));
            }
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

/// The test `mapping`: a namespace or a macro has attributes and no items.
pub(crate) fn is_mapping(value: &Value) -> bool {
    let named = |object: &minijinja::value::DynObject| {
        ["Namespace", "Macro"].iter().any(|name| object.type_name().ends_with(name))
    };
    value.kind() == ValueKind::Map && !value.as_object().is_some_and(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_that_json_does_not_have_are_written_as_python_does() {
        assert_eq!(json_float(f64::NEG_INFINITY), "-Infinity");
        assert_eq!(json_float(f64::NAN), "NaN");
        assert_eq!(json_float(1e16), "1e+16");
    }
}
