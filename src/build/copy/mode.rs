//! [`ModeSpec`]: what `--chmod` asks for.

/// A value of `--chmod`, octal or symbolic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModeSpec {
    /// Exactly these permission bits.
    Octal(u32),
    /// Changes to the bits that the source has.
    Symbolic(Vec<Clause>),
}

/// A value of `--chmod` that is neither.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("mode {0:?} is neither octal (0 to 07777) nor symbolic (as in u=rwX,go-w)")]
pub struct BadMode(pub String);

/// One change of a symbolic mode: `g+w`, `o=`, `a+X`, `g=u`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clause {
    who: Who,
    operator: Operator,
    what: What,
}

/// Which of owner, group and others a [`Clause`] speaks of, as the bits 0o4, 0o2 and 0o1.
type Who = u32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Add,
    Remove,
    Set,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Permissions {
        /// `r`, `w`, `x` as 0o4, 0o2, 0o1.
        bits: u32,
        /// `X`: execute, where the file is a directory or someone may execute it.
        execute_if_any: bool,
        /// `s`: setuid and setgid.
        set_id: bool,
        /// `t`.
        sticky: bool,
    },
    /// What owner (0o4), group (0o2) or others (0o1) have.
    CopyOf(Who),
}

const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;
const STICKY: u32 = 0o1000;
const EVERYONE: Who = 0o7;

impl ModeSpec {
    /// Reads a value of `--chmod`.
    pub fn parse(text: &str) -> Result<ModeSpec, BadMode> {
        let bad = || BadMode(text.to_owned());
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            let bits = u32::from_str_radix(text, 8).map_err(|_| bad())?;
            return if bits <= 0o7777 { Ok(ModeSpec::Octal(bits)) } else { Err(bad()) };
        }
        let mut clauses = Vec::new();
        for part in text.split(',') {
            read_clauses(part.as_bytes(), &mut clauses).ok_or_else(bad)?;
        }
        Ok(ModeSpec::Symbolic(clauses))
    }

    /// The bits of a copy of something whose bits are `mode`.
    pub fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        match self {
            ModeSpec::Octal(bits) => *bits,
            ModeSpec::Symbolic(clauses) => {
                let executable = is_directory || mode & 0o111 != 0;
                clauses.iter().fold(mode, |mode, clause| clause.apply(mode, executable))
            }
        }
    }

    /// The bits of a directory that nothing in the source stands for. As with Go's `MkdirAll`, which BuildKit calls,
    /// an octal mode loses its upper three bits and a symbolic one says nothing.
    pub fn of_implicit_directory(&self) -> Option<u32> {
        match self {
            ModeSpec::Octal(bits) => Some(bits & 0o777),
            ModeSpec::Symbolic(_) => None,
        }
    }
}

/// Reads one part between commas: `[ugoa]*` and at least one `[-+=]` with what follows it.
fn read_clauses(part: &[u8], clauses: &mut Vec<Clause>) -> Option<()> {
    let operators = part.iter().position(|byte| b"+-=".contains(byte))?;
    let mut who = 0;
    for letter in &part[..operators] {
        who |= who_of(*letter).or((*letter == b'a').then_some(EVERYONE))?;
    }
    let who = if who == 0 { EVERYONE } else { who };
    let mut rest = &part[operators..];
    while let Some((&sign, after)) = rest.split_first() {
        let operator = match sign {
            b'+' => Operator::Add,
            b'-' => Operator::Remove,
            _ => Operator::Set,
        };
        let end = after.iter().position(|byte| b"+-=".contains(byte)).unwrap_or(after.len());
        clauses.push(Clause { who, operator, what: what_of(&after[..end])? });
        rest = &after[end..];
    }
    Some(())
}

fn who_of(letter: u8) -> Option<Who> {
    match letter {
        b'u' => Some(0o4),
        b'g' => Some(0o2),
        b'o' => Some(0o1),
        _ => None,
    }
}

fn what_of(letters: &[u8]) -> Option<What> {
    if let [letter] = letters
        && let Some(who) = who_of(*letter)
    {
        return Some(What::CopyOf(who));
    }
    let (mut bits, mut execute_if_any, mut set_id, mut sticky) = (0, false, false, false);
    for letter in letters {
        match letter {
            b'r' => bits |= 0o4,
            b'w' => bits |= 0o2,
            b'x' => bits |= 0o1,
            b'X' => execute_if_any = true,
            b's' => set_id = true,
            b't' => sticky = true,
            _ => return None,
        }
    }
    Some(What::Permissions { bits, execute_if_any, set_id, sticky })
}

impl Clause {
    fn apply(&self, mode: u32, executable: bool) -> u32 {
        let change = match self.what {
            What::CopyOf(who) => spread(self.who, mode >> shift_of(who) & 0o7),
            What::Permissions { bits, execute_if_any, set_id, sticky } => {
                let execute = u32::from(execute_if_any && executable);
                spread(self.who, bits | execute)
                    | if set_id { self.special() & (SETUID | SETGID) } else { 0 }
                    | if sticky { self.special() & STICKY } else { 0 }
            }
        };
        match self.operator {
            Operator::Add => mode | change,
            Operator::Remove => mode & !change,
            Operator::Set => mode & !(spread(self.who, 0o7) | self.special()) | change,
        }
    }

    /// The upper three bits that the clause may speak of: setuid is the owner's, setgid the group's, sticky everyone's.
    fn special(&self) -> u32 {
        (if self.who & 0o4 != 0 { SETUID } else { 0 })
            | (if self.who & 0o2 != 0 { SETGID } else { 0 })
            | (if self.who == EVERYONE { STICKY } else { 0 })
    }
}

fn shift_of(who: Who) -> u32 {
    match who {
        0o4 => 6,
        0o2 => 3,
        _ => 0,
    }
}

/// `bits` for each of `who`.
fn spread(who: Who, bits: u32) -> u32 {
    [0o4, 0o2, 0o1].into_iter().filter(|one| who & one != 0).map(|one| bits << shift_of(one)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        for (text, file, directory) in [
            ("640", 0o640, 0o640),
            ("0751", 0o751, 0o751),
            ("4755", 0o4755, 0o4755),
            ("0", 0, 0),
            ("u=rwX,go=rX", 0o644, 0o755),
            ("a+X", 0o644, 0o755),
            ("g=u,o=", 0o660, 0o770),
            ("go-rwx", 0o600, 0o700),
            ("+x", 0o755, 0o755),
            ("+w", 0o666, 0o777),
            ("u+s,g+s", 0o6644, 0o6755),
            ("ug+s", 0o6644, 0o6755),
            ("+t", 0o1644, 0o1755),
            ("u+x-w", 0o544, 0o555),
            ("a=", 0, 0),
            ("o=g,g=", 0o604, 0o705),
        ] {
            let mode = ModeSpec::parse(text).expect("a good mode");
            assert_eq!((mode.apply(0o644, false), mode.apply(0o755, true)), (file, directory), "{text}");
        }
        for bad in ["999", "17777", "x", "u=q", "u+g,", "z+x", "u", "+xg", "-1x", "77777777777777"] {
            assert!(ModeSpec::parse(bad).is_err(), "{bad}");
        }
        let mode = |text: &str| ModeSpec::parse(text).expect("a good mode");
        assert_eq!(mode("a+X").apply(0o654, false), 0o755);
        assert_eq!(mode("u=rw").apply(0o4755, false), 0o655);
        assert_eq!(mode("4755").of_implicit_directory(), Some(0o755));
        assert_eq!(mode("u=rwX").of_implicit_directory(), None);
    }
}
