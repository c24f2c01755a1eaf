//! Chat templates: a conversation as the text that the model was trained on, by the Jinja template in `tokenizer.chat_template`.

mod clock;

use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, ErrorKind, context};
use serde_json::ser::{Formatter, PrettyFormatter};

use crate::gguf::Gguf;
use crate::{Error, Result};

/// What a model without a template is most likely to understand.
const CHATML: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}\
                      {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// Steps that a template may take: far more than any conversation needs, and an end to a template that has none.
const FUEL: u64 = 50_000_000;

const NAME: &str = "tokenizer.chat_template";

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who speaks: `system`, `user` or `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A turn of `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Message { role: role.into(), content: content.into() }
    }
}

/// A compiled chat template.
///
/// Templates see what they see in Hugging Face's `transformers`: `messages`, `add_generation_prompt`, `bos_token`, `eos_token`,
/// `raise_exception(text)`, `strftime_now(format)` (in UTC), the filter `tojson` with Python's spacing, Python's methods on strings,
/// lists and dicts, `break` and `continue`, and white space trimmed around blocks.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
}

impl ChatTemplate {
    /// The template of a file, or `None` if it has none: a model that only completes text.
    ///
    /// # Errors
    /// The key is no string, or as [`new`](Self::new).
    pub fn from_gguf(gguf: &Gguf) -> Result<Option<Self>> {
        let Some(source) = gguf.find::<&str>(NAME)? else { return Ok(None) };
        let text = |key: &str| -> Result<&str> {
            let id = gguf.find::<usize>(key)?;
            let tokens = gguf.find_array::<&str>("tokenizer.ggml.tokens")?;
            Ok(id.and_then(|id| tokens?.get(id)).unwrap_or_default())
        };
        let (bos, eos) = (text("tokenizer.ggml.bos_token_id")?, text("tokenizer.ggml.eos_token_id")?);
        ChatTemplate::new(source, bos, eos).map(Some)
    }

    /// Compiles the template of a model whose texts begin with `bos` and end with `eos` (empty if it has none).
    ///
    /// # Errors
    /// The template is not valid Jinja.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_global("bos_token", bos);
        environment.add_global("eos_token", eos);
        environment.add_function("raise_exception", |text: String| -> Result<Value, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, text))
        });
        environment.add_function("strftime_now", |format: String| clock::now().format(&format));
        environment.add_filter("tojson", to_json);
        environment
            .add_template_owned(NAME, source.to_string())
            .map_err(|error| Error::Gguf { at: NAME.to_string(), why: describe(&error) })?;
        Ok(ChatTemplate { environment })
    }

    /// ChatML (`<|im_start|>role … <|im_end|>`), for models that bring no template.
    ///
    /// # Errors
    /// None: the template is valid.
    pub fn chatml() -> Result<Self> {
        ChatTemplate::new(CHATML, "", "")
    }

    /// The conversation as text; with `add_generation_prompt` it ends where the assistant is to speak.
    ///
    /// # Errors
    /// The template refuses the conversation (roles that do not alternate, say), or fails.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| context! { role => message.role.as_str(), content => message.content.as_str() })
            .collect();
        self.environment
            .get_template(NAME)
            .and_then(|template| template.render(context! { messages, add_generation_prompt }))
            .map_err(|error| Error::Unsupported {
                what: format!("this conversation by the model's {NAME} ({})", describe(&error)),
                instead: "change its roles, or complete plain text".to_string(),
            })
    }
}

/// The error in one line, with the template's line.
fn describe(error: &minijinja::Error) -> String {
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_string).replace('\n', " ");
    error.line().map_or_else(|| what.clone(), |line| format!("line {line}: {what}"))
}

/// `json.dumps(value, ensure_ascii=False)` with Python's `, ` and `: `; `indent` spreads it over lines.
fn to_json(value: &Value, options: Kwargs) -> Result<Value, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    // Python's other keywords (ensure_ascii, sort_keys, separators) are accepted and keep their defaults.
    for key in ["ensure_ascii", "sort_keys", "separators"] {
        let _: Option<Value> = options.get(key)?;
    }
    options.assert_all_used()?;
    let text = match indent {
        Some(indent) => write_json(value, PrettyFormatter::with_indent(" ".repeat(indent.min(16)).as_bytes())),
        None => write_json(value, PythonSpacing),
    };
    text.map(Value::from_safe_string)
        .map_err(|error| minijinja::Error::new(ErrorKind::BadSerialization, error.to_string()))
}

fn write_json(value: &Value, formatter: impl Formatter) -> Result<String, serde_json::Error> {
    let mut bytes = Vec::new();
    serde::Serialize::serialize(value, &mut serde_json::Serializer::with_formatter(&mut bytes, formatter))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `json.dumps`'s separators.
struct PythonSpacing;

impl Formatter for PythonSpacing {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation() -> Vec<Message> {
        [("system", "Be brief."), ("user", " Hi <b>\n"), ("assistant", "Hello!"), ("user", "Bye")]
            .map(|(role, content)| Message::new(role, content))
            .to_vec()
    }

    fn rendered(source: &str) -> String {
        ChatTemplate::new(source, "<s>", "</s>").unwrap().render(&conversation(), true).unwrap()
    }

    #[test]
    fn chatml_ends_where_the_assistant_speaks() {
        let template = ChatTemplate::chatml().unwrap();
        let text = template.render(&conversation()[..2], true).unwrap();
        let turns = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hi <b>\n<|im_end|>\n";
        assert_eq!(text, format!("{turns}<|im_start|>assistant\n"));
        assert_eq!(template.render(&conversation()[..2], false).unwrap(), turns);
        assert_eq!(template.render(&[], false).unwrap(), "");
    }

    /// The template of Llama-2-chat, as published with the model.
    #[test]
    fn llama_2() {
        let source = "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}";
        assert_eq!(
            rendered(source),
            "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n Hi <b> [/INST] Hello! </s><s>[INST] Bye [/INST]"
        );
        let template = ChatTemplate::new(source, "<s>", "</s>").unwrap();
        let error = template.render(&[Message::new("assistant", "I first")], true).unwrap_err().to_string();
        assert!(error.contains("roles must alternate") && !error.contains('\n'), "{error}");
    }

    #[test]
    fn blocks_leave_no_lines_behind() {
        let source = "{%- for m in messages %}\n    {% if m.role == 'user' %}\n[{{ m.content | trim }}]\n    {% endif %}\n{% endfor %}\n";
        assert_eq!(rendered(source), "[Hi <b>]\n[Bye]\n");
    }

    #[test]
    fn json_is_pythons() {
        assert_eq!(
            rendered("{{ {'a': [1, 2.5, none, true], 'b': '<é>'} | tojson }}"),
            r#"{"a": [1, 2.5, null, true], "b": "<é>"}"#
        );
        assert_eq!(rendered("{{ [{}, []] | tojson(ensure_ascii=False) }}"), "[{}, []]");
        assert_eq!(rendered("{{ {'a': 1} | tojson(indent=2) }}"), "{\n  \"a\": 1\n}");
    }

    #[test]
    fn what_templates_in_the_wild_call() {
        assert_eq!(rendered("{{ 'a,b'.split(',')[1] }}{{ 'abc'.startswith('ab') }}{{ ' x '.strip() }}"), "bTruex");
        assert_eq!(
            rendered(
                "{% set ns = namespace(n=0) %}{% for m in messages %}{% if loop.index > 2 %}{% break %}{% endif %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}"
            ),
            "2"
        );
        assert_eq!(
            rendered("{{ messages[-1].content }}{{ messages[::-1][0]['role'] }}{{ tools is defined }}"),
            "ByeuserFalse"
        );
        assert_eq!(
            rendered(
                "{% macro f(x) %}<{{ x }}>{% endmacro %}{{ f(bos_token) }}{% for k, v in {'a': 1}.items() %}{{ k }}={{ v }}{% endfor %}"
            ),
            "<<s>>a=1"
        );
        let year: i32 = rendered("{{ strftime_now('%Y') }}").parse().unwrap();
        assert!(year >= 2024, "{year}");
    }

    #[test]
    fn broken_templates_are_errors_of_one_line() {
        let error = ChatTemplate::new("{% for x in %}", "", "").unwrap_err().to_string();
        assert!(
            error.contains("tokenizer.chat_template") && error.contains("line 1") && !error.contains('\n'),
            "{error}"
        );
        for endless in [
            "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor %}",
            "{{ f() }}",
            "{{ messages.no.such }}",
        ] {
            let template = ChatTemplate::new(endless, "", "").unwrap();
            template.render(&conversation(), true).unwrap_err();
        }
    }
}
