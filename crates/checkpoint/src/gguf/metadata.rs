//! Keys and values of a GGUF file.

use std::collections::{BTreeMap, btree_map};
use std::fmt;

/// The metadata of one file, by key.
#[derive(Debug, Default)]
pub struct Metadata {
    entries: BTreeMap<String, Entry>,
}

/// A value and where it is.
#[derive(Debug)]
struct Entry {
    value: Value,
    offset: u64,
}

impl Metadata {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(key).map(|entry| &entry.value)
    }

    /// Where the value of a key begins in the file; 0 if there is none.
    pub(super) fn offset(&self, key: &str) -> u64 {
        self.entries.get(key).map_or(0, |entry| entry.offset)
    }

    /// Adds a value that begins at `offset`; `false` if the key has one.
    pub(super) fn insert(&mut self, key: String, value: Value, offset: u64) -> bool {
        match self.entries.entry(key) {
            btree_map::Entry::Occupied(_) => false,
            btree_map::Entry::Vacant(place) => {
                place.insert(Entry { value, offset });
                true
            }
        }
    }

    /// The text of a key; `None` if absent or no text.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }

    /// The array of a key; `None` if absent or no array.
    pub fn array(&self, key: &str) -> Option<&Array> {
        self.get(key).and_then(Value::as_array)
    }

    /// All keys with their values, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, entry)| (key.as_str(), &entry.value))
    }
}

/// One value.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// Any whole number without a sign.
    Unsigned(u64),
    /// Any whole number with a sign.
    Signed(i64),
    /// Any floating-point number.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// Text. What was no UTF-8 has U+FFFD in it.
    Text(String),
    /// Values of one type, none of them an array.
    Array(Array),
}

impl Value {
    /// A whole number from 0.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Value::Unsigned(number) => Some(*number),
            Value::Signed(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// A whole number.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Value::Unsigned(number) => i64::try_from(*number).ok(),
            Value::Signed(number) => Some(*number),
            _ => None,
        }
    }

    /// A floating-point number.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Float(number) => Some(*number),
            _ => None,
        }
    }

    /// True or false.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        }
    }

    /// Text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// An array.
    pub fn as_array(&self) -> Option<&Array> {
        match self {
            Value::Array(array) => Some(array),
            _ => None,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Unsigned(number) => number.fmt(f),
            Value::Signed(number) => number.fmt(f),
            // With a point, for 2.0 is no whole number.
            Value::Float(number) => write!(f, "{number:?}"),
            Value::Bool(flag) => flag.fmt(f),
            Value::Text(text) => write!(f, "{text:?}"),
            Value::Array(array) => write!(f, "an array of {} {}", array.len(), array.kind.name()),
        }
    }
}

/// Type of a value, with its number in the file.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum ValueKind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    Array,
    U64,
    I64,
    F64,
}

impl ValueKind {
    pub(super) fn of(number: u32) -> Option<ValueKind> {
        use ValueKind::{Array, Bool, F32, F64, I8, I16, I32, I64, Text, U8, U16, U32, U64};
        let kinds = [U8, I8, U16, I16, U32, I32, F32, Bool, Text, Array, U64, I64, F64];
        usize::try_from(number).ok().and_then(|number| kinds.get(number)).copied()
    }

    /// Bytes of a value; `None` for those without a fixed size.
    pub(super) fn bytes(self) -> Option<usize> {
        match self {
            ValueKind::U8 | ValueKind::I8 | ValueKind::Bool => Some(1),
            ValueKind::U16 | ValueKind::I16 => Some(2),
            ValueKind::U32 | ValueKind::I32 | ValueKind::F32 => Some(4),
            ValueKind::U64 | ValueKind::I64 | ValueKind::F64 => Some(8),
            ValueKind::Text | ValueKind::Array => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            ValueKind::Bool => "flags",
            ValueKind::Text => "texts",
            ValueKind::F32 | ValueKind::F64 => "floating-point numbers",
            _ => "whole numbers",
        }
    }

    /// A value of fixed size from its bytes, of which there are [`ValueKind::bytes`].
    pub(super) fn decode(self, bytes: &[u8]) -> Option<Value> {
        Some(match self {
            ValueKind::U8 => Value::Unsigned(u8::from_le_bytes(bytes.try_into().ok()?).into()),
            ValueKind::I8 => Value::Signed(i8::from_le_bytes(bytes.try_into().ok()?).into()),
            ValueKind::U16 => Value::Unsigned(u16::from_le_bytes(bytes.try_into().ok()?).into()),
            ValueKind::I16 => Value::Signed(i16::from_le_bytes(bytes.try_into().ok()?).into()),
            ValueKind::U32 => Value::Unsigned(u32::from_le_bytes(bytes.try_into().ok()?).into()),
            ValueKind::I32 => Value::Signed(i32::from_le_bytes(bytes.try_into().ok()?).into()),
            ValueKind::U64 => Value::Unsigned(u64::from_le_bytes(bytes.try_into().ok()?)),
            ValueKind::I64 => Value::Signed(i64::from_le_bytes(bytes.try_into().ok()?)),
            ValueKind::F32 => Value::Float(f32::from_le_bytes(bytes.try_into().ok()?).into()),
            ValueKind::F64 => Value::Float(f64::from_le_bytes(bytes.try_into().ok()?)),
            ValueKind::Bool => Value::Bool(*bytes.first()? != 0),
            ValueKind::Text | ValueKind::Array => return None,
        })
    }
}

/// Values of one type, kept as the file has them: a vocabulary has hundreds of thousands.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    pub(super) kind: ValueKind,
    pub(super) bytes: Vec<u8>,
    /// Where each text ends in `bytes`; empty for other types.
    pub(super) ends: Vec<u32>,
}

impl Array {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self.kind.bytes() {
            Some(bytes) => self.bytes.len() / bytes,
            None => self.ends.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the values are texts.
    pub fn is_text(&self) -> bool {
        self.kind == ValueKind::Text
    }

    /// Value `index`.
    pub fn get(&self, index: usize) -> Option<Value> {
        if self.is_text() {
            return self
                .text_bytes(index)
                .map(|text| Value::Text(String::from_utf8_lossy(text).into_owned()));
        }
        let size = self.kind.bytes()?;
        let start = index.checked_mul(size)?;
        self.kind.decode(self.bytes.get(start..start.checked_add(size)?)?)
    }

    /// All values, in order.
    pub fn values(&self) -> impl Iterator<Item = Value> {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// Text `index`; `None` beyond the end, when it is no UTF-8, and for other types.
    pub fn text(&self, index: usize) -> Option<&str> {
        self.text_bytes(index).and_then(|text| std::str::from_utf8(text).ok())
    }

    /// The bytes of text `index`, which need not be UTF-8.
    pub fn text_bytes(&self, index: usize) -> Option<&[u8]> {
        let position = |end: &u32| usize::try_from(*end).ok();
        let end = self.ends.get(index).and_then(position)?;
        let start = match index.checked_sub(1) {
            Some(before) => self.ends.get(before).and_then(position)?,
            None => 0,
        };
        self.bytes.get(start..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_give_back_what_they_hold() {
        let array = Array { kind: ValueKind::I16, bytes: vec![1, 0, 255, 255], ends: Vec::new() };
        assert_eq!(array.values().collect::<Vec<_>>(), [Value::Signed(1), Value::Signed(-1)]);
        assert_eq!((array.get(2), array.text(0)), (None, None));
        let array = Array { kind: ValueKind::Text, bytes: b"ab\xffc".to_vec(), ends: vec![2, 2, 3, 4] };
        assert_eq!((array.len(), array.text(0), array.text(1)), (4, Some("ab"), Some("")));
        assert_eq!(
            (array.text(2), array.text_bytes(2), array.text(3)),
            (None, Some(&b"\xff"[..]), Some("c"))
        );
        assert_eq!(array.get(2), Some(Value::Text("\u{fffd}".into())));
        assert_eq!(array.text(4), None);
    }
}
