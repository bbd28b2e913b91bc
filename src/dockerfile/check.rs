//! `# check=`: options of the linter.

/// What the directive says. No rule is checked yet, so that nothing is skipped and nothing warned of can be an error.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckOptions {
    /// Rules that are not to be checked; `all` is every rule.
    pub skip: Vec<String>,
    /// Experimental rules that are to be checked; `all` is every such rule.
    pub experimental: Vec<String>,
    /// A warning ends the build.
    pub error: bool,
}

impl CheckOptions {
    /// Reads `skip=A,B;error=true`; the error is the part that is wrong.
    pub(super) fn parse(text: &str) -> Result<CheckOptions, String> {
        let mut options = CheckOptions::default();
        let rules = |value: &str| value.split(',').map(|rule| rule.trim().to_owned()).collect();
        for part in text.split(';') {
            let wrong = || part.trim().to_owned();
            let (key, value) = part.split_once('=').ok_or_else(wrong)?;
            match (key.trim(), value.trim()) {
                ("skip", value) => options.skip = rules(value),
                ("experimental", value) => options.experimental = rules(value),
                ("error", "true") => options.error = true,
                ("error", "false") => options.error = false,
                _ => return Err(wrong()),
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_the_linter() {
        let rules = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let parsed = CheckOptions::parse("skip=A, B;error=true").expect("good");
        assert_eq!(parsed, CheckOptions { skip: rules(&["A", "B"]), error: true, ..CheckOptions::default() });
        let parsed = CheckOptions::parse("experimental=all").expect("good");
        assert_eq!(parsed.experimental, rules(&["all"]));
        for (text, wrong) in [("A", "A"), ("skip=A;fail=true", "fail=true"), ("error=1x", "error=1x"), ("skip=A;", "")]
        {
            assert_eq!(CheckOptions::parse(text), Err(wrong.to_owned()), "{text}");
        }
    }
}
