//! A conversation as templates see it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One message of a conversation, as in the OpenAI API and in transformers.
///
/// ```
/// use tokenizer::Message;
///
/// let message: Message = serde_json::from_str(
///     r#"{"role": "assistant", "content": "4", "reasoning_content": "2 and 2"}"#)?;
/// assert_eq!(message.role, "assistant");
/// assert_eq!(message.fields["reasoning_content"], "2 and 2");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, `tool`, or whatever the template knows.
    pub role: String,
    /// What is said.
    #[serde(default, skip_serializing_if = "MessageContent::is_absent")]
    pub content: MessageContent,
    /// Every other field: `tool_calls`, `tool_call_id`, `name`, `reasoning_content`. Templates
    /// expect `tool_calls[].function.arguments` as an object, where the OpenAI API has a string
    /// of JSON: a server must parse it before.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// The content of a message.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum MessageContent {
    /// Text.
    Text(String),
    /// A list of parts, for instance `{"type": "text", "text": "..."}`.
    Parts(Vec<Value>),
    /// `null`, as in a message that only calls tools.
    Null,
    /// No such field.
    #[default]
    #[serde(skip)]
    Absent,
}

impl MessageContent {
    fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

impl From<&str> for MessageContent {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for MessageContent {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl Message {
    /// A message with this role and content and no other field.
    pub fn new(role: impl Into<String>, content: impl Into<MessageContent>) -> Self {
        Self { role: role.into(), content: content.into(), fields: Map::new() }
    }

    /// Length of the text in the message, bytes.
    pub(crate) fn text_bytes(&self) -> usize {
        let of_part = |part: &Value| part.get("text").and_then(Value::as_str).map_or(0, str::len);
        match &self.content {
            MessageContent::Text(text) => text.len(),
            MessageContent::Parts(parts) => parts.iter().map(of_part).sum(),
            MessageContent::Null | MessageContent::Absent => 0,
        }
    }

    /// Instructions to the model.
    pub fn system(content: impl Into<MessageContent>) -> Self {
        Self::new("system", content)
    }

    /// What the user says.
    pub fn user(content: impl Into<MessageContent>) -> Self {
        Self::new("user", content)
    }

    /// What the model said.
    pub fn assistant(content: impl Into<MessageContent>) -> Self {
        Self::new("assistant", content)
    }
}

/// What a chat template is told besides the messages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TemplateOptions {
    /// End with the start of the assistant's turn, so that the model answers.
    pub add_generation_prompt: bool,
    /// Switches reasoning on or off in templates that know `enable_thinking`; `None` leaves the
    /// template's default.
    pub enable_thinking: Option<bool>,
    /// The tools' JSON schemas, a list as in the OpenAI API.
    pub tools: Option<Value>,
    /// Any further variable, for instance `reasoning_effort`. It wins over a variable of the same
    /// name that is set otherwise, except `messages`.
    pub extra: Map<String, Value>,
    /// Which of several templates; `None` takes `tool_use` when there are tools and it exists,
    /// else `default`.
    pub template: Option<String>,
    /// The time that `strftime_now` tells, in seconds since 1970 of the user's *local* time
    /// (UTC seconds plus the zone's offset); `None` reads the clock. Set it for a reproducible
    /// prompt.
    pub now_s: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn messages_survive_a_round_trip() {
        for value in [
            json!({"role": "user", "content": "hi"}),
            json!({"role": "user", "content": [{"type": "text", "text": "hi"}]}),
            json!({"role": "assistant", "content": null, "tool_calls": [{"id": 1}]}),
            json!({"role": "assistant", "tool_calls": []}),
        ] {
            let message: Message = serde_json::from_value(value.clone()).unwrap();
            assert_eq!(serde_json::to_value(&message).unwrap(), value);
        }
        assert!(serde_json::from_value::<Message>(json!({"role": "user", "content": 3})).is_err());
    }
}
