//! The log on standard error, in the three forms that kaniko's log has.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write as _};
use std::str::FromStr;
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use super::progress::Bars;

/// How to log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LogSettings {
    /// What is logged.
    pub(super) level: Verbosity,
    /// In which form.
    pub(super) format: LogFormat,
    /// With the time of day instead of the seconds since the start.
    pub(super) timestamps: bool,
}

/// `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogFormat {
    /// `INFO[0000] message`, coloured on a terminal: what kaniko's default looks like where nobody reads escape codes.
    Auto,
    /// The same, always coloured: it was asked for.
    Color,
    /// `time="…" level=info msg="…"`.
    Text,
    /// An object a line.
    Json,
}

/// `--verbosity`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verbosity(LevelFilter);

/// A word that is no level or format.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("one of {0} is wanted")]
pub(super) struct UnknownWord(&'static str);

impl FromStr for LogFormat {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<LogFormat, UnknownWord> {
        match text {
            "color" => Ok(LogFormat::Color),
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(UnknownWord("text, color and json")),
        }
    }
}

impl FromStr for Verbosity {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Verbosity, UnknownWord> {
        Ok(Verbosity(match text.to_ascii_lowercase().as_str() {
            // the error that ends us is printed in any case, and nothing else is as bad
            "panic" | "fatal" => LevelFilter::OFF,
            "error" => LevelFilter::ERROR,
            "warn" | "warning" => LevelFilter::WARN,
            "info" => LevelFilter::INFO,
            "debug" => LevelFilter::DEBUG,
            "trace" => LevelFilter::TRACE,
            _ => return Err(UnknownWord("panic, fatal, error, warn, info, debug and trace")),
        }))
    }
}

/// Logs as `settings` say until the process ends. Only the first call of a process has an effect.
pub(super) fn start(settings: LogSettings, bars: Bars) {
    let is_coloured = match settings.format {
        LogFormat::Color => true,
        LogFormat::Auto => io::stderr().is_terminal(),
        LogFormat::Text | LogFormat::Json => false,
    };
    let log = Log { settings, is_coloured, start: Instant::now(), bars };
    // a second subscriber is refused: then somebody who embeds us logs already
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(log));
}

struct Log {
    settings: LogSettings,
    is_coloured: bool,
    start: Instant,
    bars: Bars,
}

impl<S: Subscriber + for<'l> LookupSpan<'l>> Layer<S> for Log {
    /// Our own events only: what libraries tell may hold what nobody should read.
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        let target = metadata.target();
        *metadata.level() <= self.settings.level.0 && (target == "kanna" || target.starts_with("kanna::"))
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut stage = Stage::default();
        attributes.record(&mut stage);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(stage);
        }
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(stage) = span.extensions_mut().get_mut::<Stage>()
        {
            record.record(stage);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let stage = context.event_span(event).and_then(|span| span.extensions().get::<Stage>().cloned());
        let line = Line {
            stage,
            level: *event.metadata().level(),
            fields,
            now: OffsetDateTime::now_utc(),
            since_start: self.start.elapsed(),
        };
        let text = match self.settings.format {
            LogFormat::Auto | LogFormat::Color => line.short(self.is_coloured, self.settings.timestamps),
            LogFormat::Text => line.text(),
            LogFormat::Json => line.json(),
        };
        // nobody is left to tell when standard error is closed
        self.bars.suspended(|| drop(io::stderr().lock().write_all(text.as_bytes())));
    }
}

/// Of which stage a line is, where several are built at the same time: the fields of the span of that stage.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Stage {
    stage: String,
    /// Which of its steps, as in `2/5`.
    step: Option<String>,
}

impl Visit for Stage {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "stage" => self.stage = value.to_owned(),
            "step" => self.step = Some(value.to_owned()),
            _ => {}
        }
    }
}

impl Stage {
    fn prefix(&self) -> String {
        let step = self.step.iter().map(|step| format!(" {step}"));
        format!("[{}{}] ", self.stage, step.collect::<String>())
    }

    fn fields(&self) -> impl Iterator<Item = (&'static str, &str)> {
        std::iter::once(("stage", self.stage.as_str())).chain(self.step.as_deref().map(|step| ("step", step)))
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" { self.message = text } else { self.others.push((field.name(), text)) }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message = value.to_owned();
        } else {
            self.others.push((field.name(), value.to_owned()));
        }
    }
}

/// One line of the log before it has a form.
struct Line {
    level: Level,
    stage: Option<Stage>,
    fields: Fields,
    now: OffsetDateTime,
    since_start: Duration,
}

impl Line {
    fn short(&self, is_coloured: bool, timestamps: bool) -> String {
        let (word, colour) = match self.level {
            Level::ERROR => ("ERRO", 31),
            Level::WARN => ("WARN", 33),
            Level::INFO => ("INFO", 36),
            Level::DEBUG => ("DEBU", 37),
            Level::TRACE => ("TRAC", 37),
        };
        let word = if is_coloured { format!("\x1b[{colour}m{word}\x1b[0m") } else { word.to_owned() };
        let time = if timestamps { self.time() } else { format!("{:04}", self.since_start.as_secs()) };
        let prefix = self.stage.as_ref().map(Stage::prefix).unwrap_or_default();
        let mut line = format!("{word}[{time}] {prefix}{}", self.fields.message);
        self.add_fields(&mut line);
        line.push('\n');
        line
    }

    fn text(&self) -> String {
        let mut line = format!("time=\"{}\" level={} msg={}", self.time(), self.word(), quoted(&self.fields.message));
        for (name, value) in self.stage.iter().flat_map(Stage::fields) {
            // writing to a string cannot fail
            let _ = write!(line, " {name}={}", quoted(value));
        }
        self.add_fields(&mut line);
        line.push('\n');
        line
    }

    fn json(&self) -> String {
        let mut object = serde_json::Map::new();
        object.insert("level".to_owned(), self.word().into());
        object.insert("msg".to_owned(), self.fields.message.as_str().into());
        object.insert("time".to_owned(), self.time().into());
        for (name, value) in self.stage.iter().flat_map(Stage::fields) {
            object.insert(name.to_owned(), value.into());
        }
        for (name, value) in &self.fields.others {
            object.insert((*name).to_owned(), value.as_str().into());
        }
        format!("{}\n", serde_json::Value::Object(object))
    }

    fn add_fields(&self, line: &mut String) {
        for (name, value) in &self.fields.others {
            // writing to a string cannot fail
            let _ = write!(line, " {name}={}", quoted(value));
        }
    }

    fn word(&self) -> &'static str {
        match self.level {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        }
    }

    fn time(&self) -> String {
        let whole_seconds = self.now.replace_nanosecond(0).unwrap_or(self.now);
        whole_seconds.format(&Rfc3339).expect("the year has four digits")
    }
}

/// A value in quotes, where logrus puts it in quotes.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._/@^+".contains(c);
    if text.chars().all(is_plain) { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn line(level: Level, message: &str, others: Vec<(&'static str, String)>) -> Line {
        Line {
            level,
            stage: None,
            fields: Fields { message: message.to_owned(), others },
            now: datetime!(2026-11-23 10:11:12.345 UTC),
            since_start: Duration::from_millis(75_900),
        }
    }

    #[test]
    fn short_lines() {
        let info = line(Level::INFO, "Pushed r/a@sha256:1", Vec::new());
        assert_eq!(info.short(false, false), "INFO[0075] Pushed r/a@sha256:1\n");
        assert_eq!(info.short(false, true), "INFO[2026-11-23T10:11:12Z] Pushed r/a@sha256:1\n");
        assert_eq!(info.short(true, false), "\x1b[36mINFO\x1b[0m[0075] Pushed r/a@sha256:1\n");
        let warning = line(Level::WARN, "odd", vec![("tracker", "walk".to_owned()), ("reason", "a b".to_owned())]);
        assert_eq!(warning.short(false, false), "WARN[0075] odd tracker=walk reason=\"a b\"\n");
    }

    #[test]
    fn text_lines() {
        for (message, shown) in [
            ("Skipping", "Skipping"),
            ("two words", "\"two words\""),
            ("say \"hi\"", "\"say \\\"hi\\\"\""),
            ("a:b", "\"a:b\""),
            ("/kaniko/executor", "/kaniko/executor"),
        ] {
            let expected = format!("time=\"2026-11-23T10:11:12Z\" level=warning msg={shown}\n");
            assert_eq!(line(Level::WARN, message, Vec::new()).text(), expected);
        }
    }

    #[test]
    fn json_lines() {
        let line = line(Level::ERROR, "a \"b\"\nc", vec![("stage", "2".to_owned())]);
        assert_eq!(
            line.json(),
            "{\"level\":\"error\",\"msg\":\"a \\\"b\\\"\\nc\",\"time\":\"2026-11-23T10:11:12Z\",\"stage\":\"2\"}\n"
        );
    }

    #[test]
    fn lines_of_stages() {
        let of = |step: Option<&str>| {
            let stage = Stage { stage: "build".to_owned(), step: step.map(str::to_owned) };
            Line { stage: Some(stage), ..line(Level::INFO, "RUN make", vec![("odd", "1".to_owned())]) }
        };
        assert_eq!(of(None).short(false, false), "INFO[0075] [build] RUN make odd=1\n");
        assert_eq!(of(Some("2/5")).short(false, false), "INFO[0075] [build 2/5] RUN make odd=1\n");
        let text = "time=\"2026-11-23T10:11:12Z\" level=info msg=\"RUN make\" stage=build step=2/5 odd=1\n";
        assert_eq!(of(Some("2/5")).text(), text);
        let json = "{\"level\":\"info\",\"msg\":\"RUN make\",\"time\":\"2026-11-23T10:11:12Z\",\"stage\":\"build\",\
                    \"step\":\"2/5\",\"odd\":\"1\"}\n";
        assert_eq!(of(Some("2/5")).json(), json);
    }

    #[test]
    fn verbosity_words() {
        for (word, level) in [
            ("panic", Some(LevelFilter::OFF)),
            ("fatal", Some(LevelFilter::OFF)),
            ("error", Some(LevelFilter::ERROR)),
            ("warning", Some(LevelFilter::WARN)),
            ("INFO", Some(LevelFilter::INFO)),
            ("debug", Some(LevelFilter::DEBUG)),
            ("trace", Some(LevelFilter::TRACE)),
            ("loud", None),
            ("", None),
        ] {
            assert_eq!(word.parse::<Verbosity>().ok(), level.map(Verbosity), "{word}");
        }
    }
}
