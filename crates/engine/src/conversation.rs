//! A conversation: turns of a user and a model, each a prompt that begins with all that was said
//! before.

use tokenizer::{Message, MessageContent, TemplateOptions};

use crate::{Engine, EngineError, Generation, Prompt, Request};

/// Messages of a conversation, and the tokens of its last turn.
///
/// A prompt is the chat template over all messages. What the model generated is kept as the tokens
/// that it was, not as the tokens that its text would make, so that the engine need only compute
/// what is new. Where a template writes earlier turns otherwise (without their reasoning, say) the
/// prompt is the template's alone.
#[derive(Clone, Debug, Default)]
pub struct Conversation {
    messages: Vec<Message>,
    /// Prompt of the last turn, and the tokens generated after it.
    prompt: Vec<u32>,
    generated: Vec<u32>,
}

impl Conversation {
    /// A conversation in which nothing was said, but for a system message.
    pub fn new(system: Option<&str>) -> Self {
        Self { messages: system.map(Message::system).into_iter().collect(), ..Self::default() }
    }

    /// The messages so far.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The request for an answer to `text`. The text is part of the conversation from
    /// [`Conversation::answered`] on.
    ///
    /// # Errors
    /// There is no chat template, or it does not accept the messages.
    pub fn request(
        &self,
        engine: &Engine,
        text: &str,
        options: &TemplateOptions,
    ) -> Result<Request, EngineError> {
        let mut messages = self.messages.clone();
        messages.push(Message::user(text));
        let prompt = Prompt::Chat { messages, options: options.clone() };
        let whole = engine.prompt_tokens(&prompt)?;
        let marks = engine.system_mark(&self.messages, options, &whole).into_iter().collect();
        let tokens = self.with_generated(engine, &whole)?.unwrap_or(whole);
        Ok(Request { prefix_marks: marks, ..engine.request(tokens) })
    }

    /// The prompt with what was generated last as the tokens that it was.
    fn with_generated(&self, engine: &Engine, whole: &[u32]) -> Result<Option<Vec<u32>>, EngineError> {
        let last = self.messages.last().filter(|_| !self.prompt.is_empty());
        let Some(MessageContent::Text(answer)) = last.map(|message| &message.content) else {
            return Ok(None);
        };
        for answer in [answer, answer.trim()] {
            let answer = engine.tokenizer()?.encode_plain(answer)?;
            let rest = whole.strip_prefix(&*self.prompt).and_then(|rest| rest.strip_prefix(&*answer));
            if let Some(rest) = rest {
                return Ok(Some([&self.prompt, &self.generated, rest].concat()));
            }
        }
        Ok(None)
    }

    /// Notes the answer to `text`.
    pub fn answered(&mut self, text: &str, generation: &Generation) {
        self.messages.push(Message::user(text));
        self.messages.push(Message::assistant(generation.text.as_str()));
        self.prompt.clone_from(&generation.prompt);
        self.generated.clone_from(&generation.tokens);
    }
}
