//! Jinja2's syntax as minijinja means it: a template is read as Jinja2 reads it, and where the two
//! differ its source is edited. Lines stay where they are.
//!
//! * Operators that know Python's types become calls: `%`, `~`, comparisons; what a loop goes over.
//! * Escapes in texts are Python's. Tuples need no parentheses. A unary plus goes.
//! * `with` evaluates all values before it names any; a macro's default may name earlier arguments;
//!   macros that use `varargs` or `kwargs` get them as arguments.
//! * `raw` keeps its first line end; `generation`, which marks text for training, is a scope.
//!
//! What cannot be read is left as it is, for minijinja to say what is wrong.

use std::collections::HashMap;

/// Deepest nesting of an expression.
const DEPTH_MAX: usize = 120;

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Kind {
    Name,
    Number,
    Text,
    Sign,
}

#[derive(Copy, Clone, Debug)]
struct Token<'a> {
    kind: Kind,
    text: &'a str,
    start: usize,
}

impl Token<'_> {
    fn end(&self) -> usize {
        self.start + self.text.len()
    }
}

/// A `{{ }}` or `{% %}`.
#[derive(Debug)]
struct Tag<'a> {
    statement: bool,
    tokens: Vec<Token<'a>>,
    /// Where its closing delimiter begins, with a sign before it.
    close: usize,
}

/// A change of the source: so many bytes at a place become a text. Of several at one place, the ends
/// of what is before come first, and of beginnings the outer ones, which are made last.
#[derive(Debug)]
struct Edit {
    at: usize,
    len: usize,
    text: String,
    order: (u8, isize),
}

/// A macro that takes any arguments.
#[derive(Clone, Debug, Default)]
struct Open {
    names: Vec<String>,
    varargs: bool,
    kwargs: bool,
}

/// The source as minijinja is to read it.
pub(crate) fn rewrite(source: &str) -> String {
    let (mut edits, mut tags) = (Vec::new(), Vec::new());
    scan(source, &mut tags, &mut edits);
    let macros = open_macros(&tags);
    let marks = |pair: &[Token]| {
        pair[0].text == "|" && matches!(pair[1].text, "e" | "escape" | "forceescape" | "safe")
    };
    let safe = tags.iter().any(|tag| tag.tokens.windows(2).any(marks));
    for tag in &tags {
        let mut walker = Walker { tag, at: 0, depth: 0, edits: Vec::new(), macros: &macros, safe };
        if walker.tag().is_some() && walker.at == tag.tokens.len() {
            edits.extend(walker.edits);
        }
    }
    apply(source, edits)
}

fn apply(source: &str, mut edits: Vec<Edit>) -> String {
    edits.sort_by_key(|edit| (edit.at, edit.order));
    let mut out =
        String::with_capacity(source.len() + edits.iter().map(|edit| edit.text.len()).sum::<usize>());
    let mut done = 0;
    for edit in edits {
        out.push_str(&source[done..edit.at.max(done)]);
        out.push_str(&edit.text);
        done = done.max(edit.at + edit.len);
    }
    out.push_str(&source[done..]);
    out
}

/// Finds the tags; edits `raw` blocks.
fn scan<'a>(source: &'a str, tags: &mut Vec<Tag<'a>>, edits: &mut Vec<Edit>) {
    let mut at = 0;
    while let Some(open) = source[at..].find('{').map(|open| at + open) {
        let rest = &source[open..];
        if rest.starts_with("{#") {
            match rest.find("#}") {
                Some(end) => at = open + end + 2,
                None => return,
            }
        } else if let Some(end) = raw_block(source, open, edits) {
            at = end;
        } else if rest.starts_with("{{") || rest.starts_with("{%") {
            let statement = rest.starts_with("{%");
            match tokens(source, open + 2, if statement { "%}" } else { "}}" }) {
                Some((tag, end)) => {
                    tags.push(Tag { statement, ..tag });
                    at = end;
                }
                None => return,
            }
        } else {
            at = open + 1;
        }
    }
}

/// The sign and the end of a tag `{% NAME %}` at the beginning of a text.
fn bare_tag(text: &str, name: &str) -> Option<(bool, bool, usize)> {
    let inner = text.strip_prefix("{%")?;
    let end = inner.find("%}")?;
    let tag = &inner[..end];
    let (left, tag) = tag.strip_prefix('-').map_or((false, tag), |tag| (true, tag));
    let tag = tag.strip_prefix('+').filter(|_| !left).unwrap_or(tag);
    let (right, tag) = tag.strip_suffix('-').map_or((false, tag), |tag| (true, tag));
    let tag = tag.strip_suffix('+').filter(|_| !right).unwrap_or(tag);
    (tag.trim() == name).then_some((left, right, end + 4))
}

/// A `raw` block at a place: its content becomes a text. Returns its end.
fn raw_block(source: &str, open: usize, edits: &mut Vec<Edit>) -> Option<usize> {
    let (_, strip_left, len) = bare_tag(&source[open..], "raw")?;
    let start = open + len;
    let mut at = start;
    let (end, (strip_right, _, end_len)) = loop {
        at += source[at..].find("{%")?;
        match bare_tag(&source[at..], "endraw") {
            Some(tag) => break (at, tag),
            None => at += 2,
        }
    };
    let plus = source[end..].starts_with("{%+");
    let mut content = &source[start..end];
    if strip_left {
        content = content.trim_start();
    }
    if strip_right {
        content = content.trim_end();
    } else if !plus {
        // As before any tag, white space from the beginning of its line goes.
        let line = content.rfind('\n').map_or(0, |line| line + 1);
        if content[line..].trim().is_empty() && line > 0 {
            content = &content[..line];
        }
    }
    let name = |from: usize, name: &str| from + source[from..].find(name).unwrap_or(0);
    let mut put = |at: usize, len: usize, text: String| edits.push(Edit { at, len, text, order: (1, 0) });
    put(name(open, "raw"), 3, "if true".to_owned());
    let quoted = content.replace('\\', "\\\\").replace('"', "\\\"");
    put(start, end - start, format!("{{{{ \"{quoted}\" }}}}"));
    put(name(end, "endraw"), 6, "endif".to_owned());
    Some(end + end_len)
}

/// The tokens from a place to the closing delimiter, and the place behind it.
fn tokens<'a>(source: &'a str, from: usize, close: &str) -> Option<(Tag<'a>, usize)> {
    const SIGNS: [&str; 6] = ["**", "//", "==", "!=", "<=", ">="];
    let mut tokens: Vec<Token<'a>> = Vec::new();
    let mut depth = 0usize;
    let mut at = from + usize::from(source[from..].starts_with(['-', '+']));
    loop {
        let rest = &source[at..];
        let c = rest.chars().next()?;
        if depth == 0 {
            let signed = usize::from(rest.starts_with(['-', '+']));
            if rest[signed..].starts_with(close) {
                return Some((Tag { statement: false, tokens, close: at }, at + signed + close.len()));
            }
        }
        if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        }
        let (kind, len) = match c {
            '"' | '\'' => (Kind::Text, text_len(rest)?),
            c if c.is_ascii_digit() => (Kind::Number, number_len(rest)),
            c if c.is_alphabetic() || c == '_' => {
                let part = |c: char| c.is_alphanumeric() || c == '_';
                (Kind::Name, rest.find(|c| !part(c)).unwrap_or(rest.len()))
            }
            _ if SIGNS.iter().any(|sign| rest.starts_with(sign)) => (Kind::Sign, 2),
            _ => (Kind::Sign, c.len_utf8()),
        };
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        tokens.push(Token { kind, text: &rest[..len], start: at });
        at += len;
    }
}

fn text_len(text: &str) -> Option<usize> {
    let quote = text.chars().next()?;
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

fn number_len(text: &str) -> usize {
    let digits = |from: usize| {
        text[from..].find(|c: char| !c.is_alphanumeric() && c != '_').map_or(text.len(), |n| from + n)
    };
    let mut end = digits(0);
    let behind = &text[end..];
    if behind.starts_with('.') && behind[1..].starts_with(|c: char| c.is_ascii_digit()) {
        end = digits(end + 1);
    }
    let exponent = text[..end].ends_with(['e', 'E']) && !text.starts_with("0x") && !text.starts_with("0X");
    if exponent && text[end..].starts_with(['+', '-']) { digits(end + 1) } else { end }
}

/// The macros whose bodies use `varargs` or `kwargs`.
fn open_macros(tags: &[Tag]) -> HashMap<String, Open> {
    let mut found: HashMap<String, Open> = HashMap::new();
    let mut around: Vec<(String, Vec<String>)> = Vec::new();
    for tag in tags {
        let word = tag.tokens.first().filter(|_| tag.statement).map(|token| token.text);
        match word {
            Some("macro") => {
                let name = tag.tokens.get(1).map_or("", |token| token.text);
                let names = tag
                    .tokens
                    .windows(2)
                    .skip(2)
                    .filter(|pair| matches!(pair[0].text, "(" | ",") && pair[1].kind == Kind::Name);
                around.push((name.to_owned(), names.map(|pair| pair[1].text.to_owned()).collect()));
                continue;
            }
            Some("endmacro") => {
                around.pop();
                continue;
            }
            _ => {}
        }
        let Some((name, names)) = around.last() else { continue };
        for token in tag.tokens.iter().filter(|token| token.kind == Kind::Name) {
            if matches!(token.text, "varargs" | "kwargs") && !names.iter().any(|name| name == token.text) {
                let open = found.entry(name.clone()).or_default();
                open.names.clone_from(names);
                open.varargs |= token.text == "varargs";
                open.kwargs |= token.text == "kwargs";
            }
        }
    }
    found
}

/// Reads one tag. `None`: it is not as Jinja2 has it.
struct Walker<'a> {
    tag: &'a Tag<'a>,
    at: usize,
    depth: usize,
    edits: Vec<Edit>,
    macros: &'a HashMap<String, Open>,
    /// Whether a filter of the template marks texts as safe.
    safe: bool,
}

impl<'a> Walker<'a> {
    fn peek(&self) -> Option<Token<'a>> {
        self.tag.tokens.get(self.at).copied()
    }

    fn is(&self, text: &str) -> bool {
        self.peek().is_some_and(|token| token.kind != Kind::Text && token.text == text)
    }

    fn take(&mut self, text: &str) -> bool {
        let found = self.is(text);
        self.at += usize::from(found);
        found
    }

    fn need(&mut self, text: &str) -> Option<()> {
        self.take(text).then_some(())
    }

    fn name(&mut self) -> Option<Token<'a>> {
        let token = self.peek().filter(|token| token.kind == Kind::Name)?;
        self.at += 1;
        Some(token)
    }

    /// Where the token before this one ends.
    fn end(&self) -> usize {
        self.at.checked_sub(1).and_then(|at| self.tag.tokens.get(at)).map_or(self.tag.close, Token::end)
    }

    fn start_of(&self, token: usize) -> usize {
        self.tag.tokens.get(token).map_or(self.tag.close, |token| token.start)
    }

    fn replace(&mut self, token: Token, text: impl Into<String>) {
        self.edits.push(Edit { at: token.start, len: token.text.len(), text: text.into(), order: (2, 0) });
    }

    fn before(&mut self, at: usize, text: impl Into<String>) {
        let order = (1, -(self.edits.len() as isize));
        self.edits.push(Edit { at, len: 0, text: text.into(), order });
    }

    fn after(&mut self, at: usize, text: impl Into<String>) {
        self.edits.push(Edit { at, len: 0, text: text.into(), order: (0, self.edits.len() as isize) });
    }

    /// Puts what was read since a token into a call, or into parentheses.
    fn wrap(&mut self, from: usize, call: &str) {
        self.before(self.start_of(from), format!("{call}("));
        self.after(self.end(), ")");
    }

    fn tag(&mut self) -> Option<()> {
        if !self.tag.statement {
            return self.tuple(true);
        }
        match self.name()?.text {
            "for" => self.for_loop(),
            "if" | "elif" => self.tuple(true),
            "set" => self.set(),
            "with" => self.with(),
            "macro" => self.macro_head(),
            "call" => {
                if self.take("(") {
                    self.parameters()?;
                }
                self.expression()
            }
            "filter" => self.filters(true),
            "do" | "autoescape" => self.expression(),
            word @ ("generation" | "endgeneration") => {
                let token = self.tag.tokens[self.at - 1];
                self.replace(token, if word == "generation" { "with" } else { "endwith" });
                Some(())
            }
            "include" => {
                // There is nothing to include; that is no reason to say nothing.
                for token in &self.tag.tokens[self.at..] {
                    if matches!(token.text, "ignore" | "missing") {
                        self.replace(*token, "");
                    }
                }
                self.at = self.tag.tokens.len();
                Some(())
            }
            _ => {
                self.at = self.tag.tokens.len();
                Some(())
            }
        }
    }

    /// Names to assign to, with commas and parentheses.
    fn target(&mut self) -> Option<()> {
        loop {
            if self.take("(") {
                self.target()?;
                self.need(")")?;
            } else {
                self.name()?;
                while self.take(".") {
                    self.name()?;
                }
            }
            if !self.take(",") || self.is("in") || self.is("=") || self.is(")") {
                return Some(());
            }
        }
    }

    fn for_loop(&mut self) -> Option<()> {
        self.target()?;
        self.need("in")?;
        let from = self.at;
        self.tuple(false)?;
        self.wrap(from, "__iter");
        if self.take("if") {
            self.expression()?;
        }
        self.take("recursive");
        Some(())
    }

    fn set(&mut self) -> Option<()> {
        self.target()?;
        if self.take("=") { self.tuple(true) } else { self.filters(false) }
    }

    /// `with a = 1, b = 2` names nothing before all values are there.
    fn with(&mut self) -> Option<()> {
        if self.peek().is_none() {
            return Some(());
        }
        let (mut targets, mut values) = (Vec::new(), Vec::new());
        loop {
            let from = self.at;
            self.target()?;
            targets.push((self.start_of(from), self.end()));
            self.need("=")?;
            let from = self.at;
            self.expression()?;
            values.push((self.start_of(from), self.end()));
            if !self.take(",") {
                break;
            }
        }
        if targets.len() == 1 && self.tag.tokens[2].text == "=" {
            return Some(());
        }
        // The values stay where they are; the names go before them.
        let source = |(start, end): (usize, usize)| -> String {
            let inside = self.tag.tokens.iter().filter(|token| token.start >= start && token.end() <= end);
            inside.map(|token| token.text).collect()
        };
        let names: Vec<String> = targets.iter().map(|target| source(*target)).collect();
        let names: Vec<String> = names
            .into_iter()
            .map(|name| if name.contains(',') { format!("({name})") } else { name })
            .collect();
        let first = targets[0].0;
        self.edits.push(Edit {
            at: first,
            len: values[0].0 - first,
            text: if names.len() == 1 {
                format!("{} = ", names[0])
            } else {
                format!("({}) = (", names.join(", "))
            },
            order: (0, isize::MIN),
        });
        for (target, value) in targets.iter().zip(&values).skip(1) {
            self.edits.push(Edit {
                at: target.0,
                len: value.0 - target.0,
                text: String::new(),
                order: (0, isize::MIN),
            });
        }
        if names.len() > 1 {
            self.after(self.end(), ")");
        }
        Some(())
    }

    /// Parameters behind their parenthesis: places of those whose defaults name earlier ones.
    fn parameters(&mut self) -> Option<Vec<(String, usize, usize)>> {
        let (mut names, mut moved): (Vec<&str>, _) = (Vec::new(), Vec::new());
        while !self.take(")") {
            let name = self.name()?.text;
            let equals = self.at;
            if self.take("=") {
                self.expression()?;
                let default = &self.tag.tokens[equals + 1..self.at];
                if default.iter().any(|token| token.kind == Kind::Name && names.contains(&token.text)) {
                    moved.push((name.to_owned(), equals, self.at));
                }
            }
            names.push(name);
            if !self.take(",") && !self.is(")") {
                return None;
            }
        }
        Some(moved)
    }

    fn macro_head(&mut self) -> Option<()> {
        let name = self.name()?.text;
        self.need("(")?;
        let empty = self.is(")");
        let moved = self.parameters()?;
        let closing = self.tag.tokens[self.at - 1].start;
        if let Some(open) = self.macros.get(name) {
            let wanted = [(open.varargs, "varargs=()"), (open.kwargs, "kwargs={}")];
            let texts: Vec<&str> =
                wanted.iter().filter(|(wanted, _)| *wanted).map(|(_, text)| *text).collect();
            self.before(closing, format!("{}{}", if empty { "" } else { ", " }, texts.join(", ")));
        }
        for (name, equals, end) in moved {
            let default: Vec<&str> =
                self.tag.tokens[equals + 1..end].iter().map(|token| token.text).collect();
            let default = default.join(" ");
            let (start, end) = (self.start_of(equals), self.tag.tokens[end - 1].end());
            // Edits inside the default go with it.
            self.edits.retain(|edit| edit.at < start || edit.at > end);
            self.edits.push(Edit { at: start, len: end - start, text: String::new(), order: (0, 0) });
            let text = format!("%}}{{% if {name} is undefined %}}{{% set {name} = {default} %}}{{% endif ");
            self.after(self.tag.close, text);
        }
        Some(())
    }

    /// One expression or several with commas, which need parentheses then.
    fn tuple(&mut self, conditional: bool) -> Option<()> {
        let from = self.at;
        let mut several = false;
        loop {
            if conditional {
                self.expression()?
            } else {
                self.or()?
            }
            if !self.take(",") {
                break;
            }
            several = true;
            if self.peek().is_none() {
                break;
            }
        }
        if several {
            self.wrap(from, "");
        }
        Some(())
    }

    fn expression(&mut self) -> Option<()> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return None;
        }
        self.or()?;
        while self.take("if") {
            self.or()?;
            if self.take("else") {
                self.expression()?;
            }
        }
        self.depth -= 1;
        Some(())
    }

    fn or(&mut self) -> Option<()> {
        loop {
            self.not()?;
            if !self.take("or") && !self.take("and") {
                return Some(());
            }
        }
    }

    fn not(&mut self) -> Option<()> {
        while self.take("not") {}
        self.compare()
    }

    fn compare(&mut self) -> Option<()> {
        let from = self.at;
        self.sum()?;
        let mut operators: Vec<(usize, usize, String)> = Vec::new();
        loop {
            let start = self.at;
            let negated =
                self.is("not") && self.tag.tokens.get(start + 1).is_some_and(|next| next.text == "in");
            self.at += usize::from(negated);
            let Some(token) = self.peek().filter(|token| token.kind != Kind::Text) else { break };
            if !matches!(token.text, "==" | "!=" | "<" | "<=" | ">" | ">=" | "in") {
                break;
            }
            self.at += 1;
            let text = if negated { "not in" } else { token.text };
            operators.push((self.start_of(start), token.end(), text.to_owned()));
            self.sum()?;
        }
        // Equality has no types; it stays, as every template has it.
        if operators.iter().any(|(_, _, text)| text != "==" && text != "!=") {
            for (start, end, text) in operators {
                let text = format!(", '{text}', ");
                self.edits.push(Edit { at: start, len: end - start, text, order: (2, 0) });
            }
            self.wrap(from, "__compare");
        }
        Some(())
    }

    fn sum(&mut self) -> Option<()> {
        let from = self.at;
        self.concat()?;
        loop {
            if let Some(plus) = self.peek().filter(|_| self.safe && self.is("+")) {
                self.at += 1;
                self.replace(plus, ",");
                self.concat()?;
                self.wrap(from, "__add");
            } else if self.take("+") || self.take("-") {
                self.concat()?;
            } else {
                return Some(());
            }
        }
    }

    fn concat(&mut self) -> Option<()> {
        let from = self.at;
        self.product()?;
        let mut any = false;
        while let Some(token) = self.peek().filter(|_| self.is("~")) {
            self.at += 1;
            self.replace(token, ",");
            self.product()?;
            any = true;
        }
        if any {
            self.wrap(from, "__concat");
        }
        Some(())
    }

    fn product(&mut self) -> Option<()> {
        let from = self.at;
        self.power()?;
        loop {
            if self.take("*") || self.take("/") || self.take("//") {
                self.power()?;
                continue;
            }
            let Some(token) = self.peek().filter(|_| self.is("%")) else { return Some(()) };
            self.at += 1;
            self.replace(token, ",");
            self.power()?;
            self.wrap(from, "__remainder");
        }
    }

    fn power(&mut self) -> Option<()> {
        loop {
            let negative = self.is("-");
            self.unary()?;
            if !self.take("**") {
                return Some(());
            }
            // Jinja2 reads this in one way if it can compute it at once, and else in another.
            if negative && self.peek()?.kind != Kind::Number {
                let at = self.start_of(self.at);
                self.before(at, "__refuse('a power of a negative number; use parentheses') * ");
            }
        }
    }

    fn unary(&mut self) -> Option<()> {
        loop {
            if self.take("-") {
                continue;
            }
            match self.peek().filter(|_| self.is("+")) {
                Some(plus) => {
                    self.at += 1;
                    self.replace(plus, " ");
                }
                None => break,
            }
        }
        let from = self.at;
        self.primary()?;
        self.postfix(from)?;
        loop {
            if self.is("|") {
                self.filters(false)?;
            } else if self.take("is") {
                self.test()?;
                if self.is("is") {
                    self.after(self.end(), " + __refuse('tests in a chain; use `and`')");
                }
            } else if self.is("(") {
                self.postfix(from)?;
            } else {
                return Some(());
            }
        }
    }

    fn primary(&mut self) -> Option<()> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return None;
        }
        let token = self.peek()?;
        self.at += 1;
        match (token.kind, token.text) {
            (Kind::Text, _) => {
                self.text(token)?;
                while let Some(next) = self.peek().filter(|next| next.kind == Kind::Text) {
                    self.at += 1;
                    self.text(next)?;
                }
            }
            (Kind::Name, "and" | "or" | "not" | "in" | "is" | "if" | "else") => return None,
            (Kind::Name, "self" | "lipsum") => {
                self.replace(token, format!("__refuse('`{}` is not available')", token.text));
            }
            (Kind::Name, name) => {
                if let Some(open) = self.macros.get(name).filter(|_| self.is("(")) {
                    self.at += 1;
                    self.open_arguments(&open.clone())?;
                }
            }
            (Kind::Number, text) => {
                if text.len() > 1 && text.starts_with('0') && text.chars().all(|c| c.is_ascii_digit()) {
                    self.replace(token, "__refuse('a number that begins with zero')");
                }
            }
            (_, "(") => self.list(")")?,
            (_, "[") => self.list("]")?,
            (_, "{") => self.dict()?,
            _ => return None,
        }
        self.depth -= 1;
        Some(())
    }

    fn list(&mut self, close: &str) -> Option<()> {
        while !self.take(close) {
            self.expression()?;
            if !self.take(",") && !self.is(close) {
                return None;
            }
        }
        Some(())
    }

    fn dict(&mut self) -> Option<()> {
        while !self.take("}") {
            self.expression()?;
            self.need(":")?;
            self.expression()?;
            if !self.take(",") && !self.is("}") {
                return None;
            }
        }
        Some(())
    }

    /// Attributes, items and calls of what began with a token.
    fn postfix(&mut self, from: usize) -> Option<()> {
        loop {
            if self.take(".") {
                if self.peek().is_none() {
                    self.after(self.end(), " ]");
                    return Some(());
                }
                self.at += usize::from(self.peek()?.kind == Kind::Name || self.peek()?.kind == Kind::Number);
            } else if self.take("[") {
                let end = self.tag.tokens[self.at - 2].end();
                if self.subscript()? {
                    self.before(self.start_of(from), "__parts(");
                    self.after(end, ")");
                }
            } else if self.take("(") {
                self.arguments()?;
            } else {
                return Some(());
            }
        }
    }

    /// What is between brackets; whether it is a slice.
    fn subscript(&mut self) -> Option<bool> {
        let mut slice = false;
        while !self.take("]") {
            if self.take(":") {
                slice = true;
            } else if !self.take(",") {
                self.expression()?;
            }
        }
        Some(slice)
    }

    fn arguments(&mut self) -> Option<()> {
        while !self.take(")") {
            if !(self.take("*") || self.take("**")) {
                self.argument_name();
            }
            self.expression()?;
            if !self.take(",") && !self.is(")") {
                return None;
            }
        }
        Some(())
    }

    fn argument_name(&mut self) -> Option<Token<'a>> {
        let name = self.peek().filter(|token| token.kind == Kind::Name)?;
        let equals = self.tag.tokens.get(self.at + 1).filter(|token| token.text == "=")?;
        debug_assert_eq!(equals.kind, Kind::Sign);
        self.at += 2;
        Some(name)
    }

    /// Arguments of a macro that takes any: those it has no names for are collected.
    fn open_arguments(&mut self, open: &Open) -> Option<()> {
        let mut places = 0;
        // Beginning and end of what was collected.
        let (mut varargs, mut kwargs) = (None, None);
        while !self.take(")") {
            let start = self.start_of(self.at);
            match self.argument_name() {
                Some(name) if open.kwargs && !open.names.iter().any(|known| known == name.text) => {
                    let equals = self.tag.tokens[self.at - 1];
                    self.replace(name, format!("'{}'", name.text));
                    self.replace(equals, ":");
                    self.expression()?;
                    kwargs = Some((kwargs.map_or(start, |(first, _)| first), self.end()));
                }
                Some(_) if kwargs.is_some() => return None,
                Some(_) => self.expression()?,
                None => {
                    self.expression()?;
                    places += 1;
                    if open.varargs && places > open.names.len() {
                        varargs = Some((varargs.map_or(start, |(first, _)| first), self.end()));
                    }
                }
            }
            if !self.take(",") && !self.is(")") {
                return None;
            }
        }
        let mut collect = |part: Option<(usize, usize)>, before: &str, after: &str| {
            if let Some((start, end)) = part {
                self.before(start, before);
                self.after(end, after);
            }
        };
        collect(varargs, "varargs=(", ",)");
        collect(kwargs, "kwargs={", "}");
        Some(())
    }

    /// `|name(arguments)|…`; the first bar may be missing.
    fn filters(&mut self, first: bool) -> Option<()> {
        let mut wanted = first;
        while wanted || self.take("|") {
            wanted = false;
            self.name()?;
            while self.take(".") {
                self.name()?;
            }
            if self.take("(") {
                self.arguments()?;
            }
        }
        Some(())
    }

    fn test(&mut self) -> Option<()> {
        self.take("not");
        let name = self.peek()?;
        self.at += 1;
        if name.kind != Kind::Name {
            return None;
        }
        while self.take(".") {
            self.name()?;
        }
        if self.take("(") {
            return self.arguments();
        }
        let Some(next) = self.peek() else { return Some(()) };
        let argument = match next.kind {
            Kind::Name => {
                !matches!(next.text, "else" | "or" | "and" | "if" | "is" | "not" | "in" | "recursive")
            }
            Kind::Number | Kind::Text => true,
            Kind::Sign => matches!(next.text, "[" | "{"),
        };
        if argument {
            let from = self.at;
            self.primary()?;
            self.postfix(from)?;
        }
        Some(())
    }

    /// A text's escapes, as Python reads them.
    fn text(&mut self, token: Token<'a>) -> Option<()> {
        if !token.text.contains('\\') {
            return Some(());
        }
        let Some(content) = unescape(&token.text[1..token.text.len() - 1]) else {
            self.replace(token, "__refuse('an escape in a text that stands for no character')");
            return Some(());
        };
        let quoted = content.replace('\\', "\\\\").replace('"', "\\\"");
        self.replace(token, format!("\"{quoted}\""));
        Some(())
    }
}

/// The text that a literal of Python stands for. `None`: it has an escape that is damaged, is half of
/// a character, or names one.
fn unescape(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let code = |chars: &mut std::str::Chars, len: usize| {
            let digits =
                chars.as_str().get(..len).filter(|digits| digits.chars().all(|c| c.is_ascii_hexdigit()))?;
            *chars = chars.as_str()[len..].chars();
            char::from_u32(u32::from_str_radix(digits, 16).ok()?)
        };
        match chars.next()? {
            '\n' => {}
            c @ ('\\' | '\'' | '"') => out.push(c),
            'a' => out.push('\u{7}'),
            'b' => out.push('\u{8}'),
            'f' => out.push('\u{c}'),
            'n' => out.push('\n'),
            'r' => out.push('\r'),
            't' => out.push('\t'),
            'v' => out.push('\u{b}'),
            'x' => out.push(code(&mut chars, 2)?),
            'u' => out.push(code(&mut chars, 4)?),
            'U' => out.push(code(&mut chars, 8)?),
            'N' => return None,
            first @ '0'..='7' => {
                let more = chars.as_str().chars().take(2).take_while(|c| ('0'..='7').contains(c)).count();
                let digits: String = [first].into_iter().chain(chars.by_ref().take(more)).collect();
                out.push(char::from_u32(u32::from_str_radix(&digits, 8).ok()?)?);
            }
            other => out.extend(['\\', other]),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::rewrite;

    #[test]
    fn what_differs_is_edited_and_the_rest_stays() {
        for (source, expected) in [
            ("a {{ b }} {# {{ 1 % 2 }} #}", "a {{ b }} {# {{ 1 % 2 }} #}"),
            ("{{ a % b }}", "{{ __remainder(a , b) }}"),
            ("{{ a * b % c % d }}", "{{ __remainder(__remainder(a * b , c) , d) }}"),
            ("{{ a ~ b ~ 'x' }}", "{{ __concat(a , b , 'x') }}"),
            ("{% if a not in b %}", "{% if __compare(a , 'not in',  b) %}"),
            ("{% for a, b in c if d %}", "{% for a, b in __iter(c) if d %}"),
            ("{{ 1, 2 }}", "{{ (1, 2) }}"),
            ("{{ '\\U0001f642\\q' }}", "{{ \"🙂\\\\q\" }}"),
            ("{%- generation %}a{% endgeneration -%}", "{%- with %}a{% endwith -%}"),
            ("{% with a = 1, b = a %}", "{% with (a, b) = (1, a) %}"),
            (
                "{% macro m(a, b=a) -%}",
                "{% macro m(a, b) %}{% if b is undefined %}{% set b = a %}{% endif -%}",
            ),
            ("{%- raw -%}\n {{ '\\' }} {% endraw %}", "{%- if true -%}{{ \"{{ '\\\\' }} \" }}{% endif %}"),
            ("{{ a % }}", "{{ a % }}"),
            ("{{ '{%' }}{{ {'a': {}} }}", "{{ '{%' }}{{ {'a': {}} }}"),
        ] {
            assert_eq!(rewrite(source), expected, "{source}");
        }
    }
}
