//! A conversation: turns of a user and a model, each a prompt that begins with all that was said before.

use tokenizer::{Message, MessageContent, TemplateOptions, Tokenizer};

use crate::{EngineError, Generation};

/// What was said, and the tokens that a session has seen of it.
///
/// A prompt is the chat template over all messages. What the model generated is kept as the tokens that it was, not as
/// the tokens that its text would make, so that a session need only compute what is new. Where a template writes
/// earlier turns otherwise (without their reasoning, say) the prompt is the template's alone.
#[derive(Clone, Debug, Default)]
pub struct Conversation {
    messages: Vec<Message>,
    /// Prompt of the last turn, and what was generated after it.
    prompt: Vec<u32>,
    generated: Vec<u32>,
}

impl Conversation {
    /// A conversation in which nothing was said, but for a system message.
    pub fn new(system: Option<&str>) -> Self {
        Self { messages: system.map(Message::system).into_iter().collect(), ..Self::default() }
    }

    /// What was said.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The prompt for an answer to `text`. The text is part of the conversation from [`Conversation::answered`] on.
    ///
    /// # Errors
    /// There is no chat template, or it does not accept the messages.
    pub fn prompt(
        &self,
        tokenizer: &Tokenizer,
        text: &str,
        options: &TemplateOptions,
    ) -> Result<Vec<u32>, EngineError> {
        let mut messages = self.messages.clone();
        messages.push(Message::user(text));
        let options = TemplateOptions { add_generation_prompt: true, ..options.clone() };
        // Control tokens that a message spells out stay text: only the template writes control tokens.
        let whole = tokenizer.encode_chat(&messages, &options)?;
        let last = self.messages.last().filter(|_| !self.prompt.is_empty());
        let Some(MessageContent::Text(answer)) = last.map(|message| &message.content) else {
            return Ok(whole);
        };
        for answer in [answer, answer.trim()] {
            let answer = tokenizer.encode_plain(answer)?;
            if let Some(rest) = whole.strip_prefix(&*self.prompt).and_then(|rest| rest.strip_prefix(&*answer))
            {
                return Ok([&self.prompt, &self.generated, rest].concat());
            }
        }
        Ok(whole)
    }

    /// Notes what was answered to `text`, whose prompt was `prompt`.
    pub fn answered(&mut self, text: &str, prompt: Vec<u32>, generation: &Generation) {
        self.messages.push(Message::user(text));
        self.messages.push(Message::assistant(generation.text.as_str()));
        self.prompt = prompt;
        self.generated.clone_from(&generation.tokens);
    }
}
