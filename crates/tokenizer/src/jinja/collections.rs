//! Jinja2's filters of lists and dicts.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::BTreeSet;

use minijinja::value::{Tuple, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

use super::compare::{order, plus};
use super::objects::{Generator, Group, Range, View};
use super::text::{is, str_of};
use super::{Callable, bind, charge, invalid, is_true, items, text_value, width};

pub(super) const ALL: [(&str, Callable); 22] = [
    ("batch", batch),
    ("count", length),
    ("dictsort", dict_sort),
    ("first", |state, args| Ok(only(state, args)?.into_iter().next().unwrap_or_default())),
    ("groupby", group_by),
    ("items", pairs),
    ("join", join),
    ("last", last),
    ("length", length),
    ("list", |state, args| Ok(Value::from(only(state, args)?))),
    ("map", map),
    ("max", |state, args| extreme(state, args, Ordering::Greater)),
    ("min", |state, args| extreme(state, args, Ordering::Less)),
    ("reject", |state, args| select(state, args, false, false)),
    ("rejectattr", |state, args| select(state, args, true, false)),
    ("reverse", reverse),
    ("select", |state, args| select(state, args, false, true)),
    ("selectattr", |state, args| select(state, args, true, true)),
    ("slice", slice),
    ("sort", sort),
    ("sum", sum),
    ("unique", unique),
];

/// The items of the only argument.
fn only(state: &mut State, args: Vec<Value>) -> Result<Vec<Value>, Error> {
    let [value] = bind(args, ["value"], 1)?;
    items(state, &value.unwrap_or_default())
}

fn length(_: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    let [value] = bind(args, ["value"], 1)?;
    let value = value.unwrap_or_default();
    match value.len() {
        _ if value.is_undefined() => Ok(0.into()),
        Some(len) => Ok(len.into()),
        None => Err(invalid(format!("{} has no length", value.kind()))),
    }
}

fn last(state: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    if args.first().is_some_and(is::<Generator>) {
        return Err(invalid("a generator has no last item; put `| list` before the filter"));
    }
    Ok(only(state, args)?.pop().unwrap_or_default())
}

/// The item at a path such as `a.b.0`.
fn at_path(value: &Value, path: &Value) -> Value {
    let Some(text) = path.as_str() else { return value.get_item(path).unwrap_or_default() };
    text.split('.').fold(value.clone(), |value, key| {
        let key = key.parse::<usize>().map_or_else(|_| Value::from(key), Value::from);
        value.get_item(&key).unwrap_or_default()
    })
}

/// What items are compared by: an attribute, and texts without their case.
fn key(value: &Value, attribute: Option<&Value>, case_sensitive: bool) -> Value {
    let value = attribute.map_or_else(|| value.clone(), |path| at_path(value, path));
    match value.as_str() {
        Some(text) if !case_sensitive => Value::from(text.to_lowercase()),
        _ => value,
    }
}

fn given(value: Option<Value>) -> Option<Value> {
    value.filter(|value| !value.is_none())
}

/// Sorts by keys; an error where Python cannot compare two of them.
fn sort_by(items: &mut [(Value, Value)], reverse: bool) -> Result<(), Error> {
    let failed = RefCell::new(None);
    let compare = |a: &Value, b: &Value| match order(a, b) {
        Ok(order) => order.unwrap_or(Ordering::Equal),
        Err(error) => {
            failed.borrow_mut().get_or_insert(error);
            a.cmp(b)
        }
    };
    items.sort_by(|(a, _), (b, _)| if reverse { compare(b, a) } else { compare(a, b) });
    failed.into_inner().map_or(Ok(()), Err)
}

fn keyed(items: Vec<Value>, attribute: Option<&Value>, case_sensitive: bool) -> Vec<(Value, Value)> {
    items.into_iter().map(|item| (key(&item, attribute, case_sensitive), item)).collect()
}

fn values(keyed: Vec<(Value, Value)>) -> Vec<Value> {
    keyed.into_iter().map(|(_, item)| item).collect()
}

fn sort(state: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    let names = ["value", "reverse", "case_sensitive", "attribute"];
    let [value, reverse, case, attribute] = bind(args, names, 1)?;
    let items = items(state, &value.unwrap_or_default())?;
    let (case, attribute) = (is_true(case.as_ref()), given(attribute));
    let mut keyed = match attribute.as_ref().and_then(Value::as_str).filter(|path| path.contains(',')) {
        None => keyed(items, attribute.as_ref(), case),
        Some(paths) => {
            let all = |item: &Value| -> Vec<Value> {
                paths.split(',').map(|path| key(item, Some(&Value::from(path)), case)).collect()
            };
            items.into_iter().map(|item| (Value::from(all(&item)), item)).collect()
        }
    };
    sort_by(&mut keyed, is_true(reverse.as_ref()))?;
    Ok(Value::from(values(keyed)))
}

fn dict_sort(state: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    let [value, case, by, reverse] = bind(args, ["value", "case_sensitive", "by", "reverse"], 1)?;
    let map = value.unwrap_or_default();
    if !super::python::is_mapping(&map) {
        return Err(invalid(format!("dictsort takes a dict, not {}", map.kind())));
    }
    let place = match by.as_ref().map_or(Some("key"), Value::as_str) {
        Some("key") => 0,
        Some("value") => 1,
        _ => return Err(invalid("dictsort knows by='key' and by='value'")),
    };
    let mut pairs = Vec::new();
    for key_of in items(state, &map)? {
        let pair = [key_of.clone(), map.get_item(&key_of)?];
        let by = key(&pair[place], None, is_true(case.as_ref()));
        pairs.push((by, Value::from(Tuple::from(pair.to_vec()))));
    }
    sort_by(&mut pairs, is_true(reverse.as_ref()))?;
    Ok(Value::from(values(pairs)))
}

fn extreme(state: &mut State, args: Vec<Value>, wanted: Ordering) -> Result<Value, Error> {
    let [value, case, attribute] = bind(args, ["value", "case_sensitive", "attribute"], 1)?;
    let items = items(state, &value.unwrap_or_default())?;
    let attribute = given(attribute);
    let mut best: Option<(Value, Value)> = None;
    for (key, item) in keyed(items, attribute.as_ref(), is_true(case.as_ref())) {
        let better = match &best {
            Some((known, _)) => order(&key, known)? == Some(wanted),
            None => true,
        };
        if better {
            best = Some((key, item));
        }
    }
    Ok(best.map(|(_, item)| item).unwrap_or_default())
}

fn unique(state: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    let [value, case, attribute] = bind(args, ["value", "case_sensitive", "attribute"], 1)?;
    let items = items(state, &value.unwrap_or_default())?;
    let attribute = given(attribute);
    let mut seen = BTreeSet::new();
    let mut out = Vec::new();
    for (key, item) in keyed(items, attribute.as_ref(), is_true(case.as_ref())) {
        if matches!(key.kind(), ValueKind::Seq | ValueKind::Map) && !key.is_tuple() {
            return Err(invalid("lists and dicts cannot be told apart by unique; use an attribute"));
        }
        if seen.insert(key) {
            out.push(item);
        }
    }
    Ok(Generator::value(out))
}

fn sum(state: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    let [value, attribute, start] = bind(args, ["value", "attribute", "start"], 1)?;
    let attribute = given(attribute);
    let mut total = start.unwrap_or_else(|| Value::from(0));
    for item in items(state, &value.unwrap_or_default())? {
        let item = attribute.as_ref().map_or_else(|| item.clone(), |path| at_path(&item, path));
        total = plus(&total, &item)?;
    }
    Ok(total)
}

fn group_by(state: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    let names = ["value", "attribute", "default", "case_sensitive"];
    let [value, attribute, default, case] = bind(args, names, 2)?;
    let case = is_true(case.as_ref());
    let mut keyed = keyed(items(state, &value.unwrap_or_default())?, attribute.as_ref(), case);
    for (key, _) in &mut keyed {
        if let (true, Some(default)) = (key.is_undefined(), &default) {
            *key = default.clone();
        }
    }
    sort_by(&mut keyed, false)?;
    let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
    for (key, item) in keyed {
        match groups.last_mut().filter(|(known, _)| *known == key) {
            Some((_, group)) => group.push(item),
            None => groups.push((key, vec![item])),
        }
    }
    Ok(groups
        .into_iter()
        .map(|(key, group)| {
            // The name that the first of the group has, whatever its case.
            let shown = attribute.as_ref().map(|path| at_path(&group[0], path));
            Value::from_object(Group(
                shown.filter(|shown| !shown.is_undefined()).unwrap_or(key),
                group.into(),
            ))
        })
        .collect())
}

fn pairs(state: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    let [value] = bind(args, ["value"], 1)?;
    let map = value.unwrap_or_default();
    match map.kind() {
        ValueKind::Undefined => Ok(Generator::value(Vec::new())),
        ValueKind::Map if super::python::is_mapping(&map) => {
            let view = View::of(state, &map, "items")?.unwrap_or_default();
            Ok(Generator::value(items(state, &view)?))
        }
        kind => Err(invalid(format!("items takes a dict, not {kind}"))),
    }
}

fn join(state: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    let [value, separator, attribute] = bind(args, ["value", "d", "attribute"], 1)?;
    let separator = separator.map_or(Ok(String::new()), |separator| str_of(state, &separator))?;
    let attribute = given(attribute);
    let mut out = String::new();
    for (index, item) in items(state, &value.unwrap_or_default())?.into_iter().enumerate() {
        if index > 0 {
            charge(state, separator.len())?;
            out.push_str(&separator);
        }
        let item = attribute.as_ref().map_or_else(|| item.clone(), |path| at_path(&item, path));
        out.push_str(&str_of(state, &item)?);
    }
    Ok(out.into())
}

fn reverse(state: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    let [value] = bind(args, ["value"], 1)?;
    let value = value.unwrap_or_default();
    if let Some(text) = value.as_str() {
        return text_value(state, text.chars().rev().collect());
    }
    let mut items = items(state, &value)?;
    items.reverse();
    Ok(Generator::value(items))
}

fn batch(state: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    let [value, count, fill] = bind(args, ["value", "linecount", "fill_with"], 2)?;
    let count = width(&count.unwrap_or_default(), "the number of items")?.max(1);
    let items = items(state, &value.unwrap_or_default())?;
    let mut rows: Vec<Vec<Value>> = items.chunks(count).map(<[Value]>::to_vec).collect();
    if let (Some(last), Some(fill)) = (rows.last_mut(), given(fill)) {
        state.consume_fuel(count as u64)?;
        last.resize(count, fill);
    }
    Ok(Generator::value(rows.into_iter().map(Value::from).collect()))
}

fn slice(state: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    let [value, count, fill] = bind(args, ["value", "slices", "fill_with"], 2)?;
    let count = width(&count.unwrap_or_default(), "the number of slices")?;
    state.consume_fuel(count as u64)?;
    let (items, fill) = (items(state, &value.unwrap_or_default())?, given(fill));
    if count == 0 {
        return Err(invalid("there must be one slice at least"));
    }
    let (each, more) = (items.len() / count, items.len() % count);
    let mut rest = items.as_slice();
    let mut slices = Vec::new();
    for index in 0..count {
        let (part, tail) = rest.split_at(each + usize::from(index < more));
        rest = tail;
        let mut part = part.to_vec();
        part.extend(fill.clone().filter(|_| index >= more));
        slices.push(Value::from(part));
    }
    Ok(Generator::value(slices))
}

fn map(state: &mut State, mut args: Vec<Value>) -> Result<Value, Error> {
    if args.is_empty() {
        return Err(ErrorKind::MissingArgument.into());
    }
    let value = args.remove(0);
    // An empty value, whatever it is, has nothing to map.
    if !value.is_true() && !is::<Range>(&value) {
        return Ok(Generator::value(Vec::new()));
    }
    let items = items(state, &value)?;
    let named = args.first().filter(|first| first.is_kwargs()).cloned();
    let mut out = Vec::with_capacity(items.len());
    if let Some(named) = named {
        let [_, attribute, default] =
            bind(vec![Value::UNDEFINED, named], ["value", "attribute", "default"], 1)?;
        let attribute = attribute.ok_or_else(|| invalid("map takes a filter or an attribute"))?;
        for item in &items {
            let found = at_path(item, &attribute);
            let missing = found.is_undefined();
            out.push(default.clone().filter(|_| missing).unwrap_or(found));
        }
        return Ok(Generator::value(out));
    }
    let name = args.first().cloned().unwrap_or_default();
    let name = name.as_str().ok_or_else(|| invalid("map takes the name of a filter"))?.to_owned();
    for item in items {
        state.consume_fuel(1)?;
        args[0] = item;
        out.push(state.apply_filter(&name, &args)?);
    }
    Ok(Generator::value(out))
}

fn select(state: &mut State, mut args: Vec<Value>, attribute: bool, wanted: bool) -> Result<Value, Error> {
    if args.len() < 1 + usize::from(attribute) {
        return Err(ErrorKind::MissingArgument.into());
    }
    let value = args.remove(0);
    if !value.is_true() && !is::<Range>(&value) {
        return Ok(Generator::value(Vec::new()));
    }
    let path = attribute.then(|| args.remove(0));
    let test = (!args.is_empty()).then(|| args.remove(0));
    let test = test.as_ref().map(|test| test.as_str().ok_or_else(|| invalid("a test is named by a text")));
    let test = test.transpose()?;
    args.insert(0, Value::UNDEFINED);
    let mut out = Vec::new();
    for item in items(state, &value)? {
        state.consume_fuel(1)?;
        let tested = path.as_ref().map_or_else(|| item.clone(), |path| at_path(&item, path));
        let holds = match test {
            None => tested.is_true(),
            Some(test) => {
                args[0] = tested;
                state.perform_test(test, &args)?
            }
        };
        if holds == wanted {
            out.push(item);
        }
    }
    Ok(Generator::value(out))
}
