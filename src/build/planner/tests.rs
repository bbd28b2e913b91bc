use std::fmt::Write;

use super::*;
use crate::build::plan::{Action, CopyFrom, Unseen};
use crate::build::request::NamedSource;

fn planned(text: &str) -> Plan<Unseen> {
    planned_with(text, None, &[])
}

fn planned_with(text: &str, target: Option<&str>, contexts: &[NamedContext]) -> Plan<Unseen> {
    let file = dockerfile::parse(text.as_bytes()).expect("a good file");
    let platform = Platform::host();
    let wishes = Wishes { build_args: &[], target, platform: &platform, contexts };
    plan(&file, &wishes, &mut |_, _| Ok(Unseen)).expect("a good plan")
}

/// More than anybody writes. Where a stage costs what there is before it, this is felt.
const MANY: usize = 20_000;

#[test]
fn many_stages() {
    let mut text = "FROM scratch AS stage0\n".to_owned();
    for number in 1..MANY {
        let before = number - 1;
        let base = if number % 2 == 0 { format!("image{number}") } else { format!("stage{before}") };
        writeln!(text, "FROM {base} AS stage{number}\nCOPY --from=stage{before} /a /{number}")
            .expect("a String takes all");
    }
    let plan = planned(&text);
    assert_eq!(plan.needed().count(), MANY);
    let last = plan.stages[MANY - 1].as_ref().expect("the target");
    assert!(matches!(last.base, Base::Stage(before) if before == MANY - 2));
}

#[test]
fn many_variables() {
    let mut text = "FROM scratch\nENV FIRST=1\n".to_owned();
    for number in 1..=MANY {
        writeln!(text, "ARG VARIABLE{number}=${{FIRST}}{number}").expect("a String takes all");
    }
    writeln!(text, "USER $VARIABLE{MANY}").expect("a String takes all");
    let plan = planned(&text);
    let config = plan.stages[0].as_ref().expect("the target").config.config.clone().expect("a run config");
    assert_eq!(config.user, format!("1{MANY}"));
}

#[test]
fn of_stages_with_one_name_the_last_before_counts() {
    let text = "FROM scratch AS a\nFROM scratch AS A\nFROM a AS b\nCOPY --from=0 /x /\nCOPY --from=A /x /\nFROM scratch AS a\n\
                COPY --from=b /x /\n";
    let plan = planned(text);
    let sources = |number: usize| -> Vec<_> {
        let steps = plan.stages[number].iter().flat_map(|stage| &stage.steps);
        let from = |step: &Step<Unseen>| match &step.action {
            Action::Copy(copy) => match copy.from {
                CopyFrom::Stage(from) => from,
                _ => panic!("no stage"),
            },
            _ => panic!("no copy"),
        };
        steps.map(from).collect()
    };
    assert!(matches!(plan.stages[2].as_ref().expect("needed").base, Base::Stage(1)));
    assert_eq!((sources(2), sources(3)), (vec![0, 1], vec![2]));
}

#[test]
fn a_named_context_with_the_name_of_a_stage() {
    let text = "FROM scratch AS files\nRUN stage\nFROM scratch AS middle\nCOPY --from=files /x /\nCOPY --from=files:latest /x /\n\
                COPY --from=0 /x /\nFROM files AS last\n";
    let place = crate::http::FilePlace::Path("/somewhere".into());
    let name = parse_reference("files").expect("a name");
    let contexts = [NamedContext { name, source: NamedSource::Files(place) }];
    let plan = planned_with(text, Some("middle"), &contexts);
    let from = |step: &Step<Unseen>| match &step.action {
        Action::Copy(copy) => copy.from.clone(),
        _ => panic!("no copy"),
    };
    let steps = &plan.stages[1].as_ref().expect("the target").steps;
    assert!(matches!(from(&steps[0]), CopyFrom::Named(0)), "by its name it is the context");
    assert!(matches!(from(&steps[2]), CopyFrom::Stage(0)), "by its number it is the stage");
    assert!(plan.stages[0].is_some());
    let plan = planned_with(text, Some("files"), &contexts);
    assert!(matches!(plan.stages[0].as_ref().expect("the target").steps[0].action, Action::Run(_)), "so is a target");
    let plan = planned_with(text, None, &contexts);
    assert!(plan.stages[0].is_none() && plan.stages[1].is_none(), "nothing needs the stage");
    let last = plan.stages[2].as_ref().expect("the target");
    assert!(matches!(last.base, Base::Scratch) && matches!(from(&last.steps[0]), CopyFrom::Named(0)));
}

#[test]
fn a_working_directory_is_kept_as_it_is_called() {
    let plan = planned("FROM scratch\nWORKDIR /a\nWORKDIR \"it's \u{1b}\"\n");
    let config = plan.stages[0].as_ref().expect("the target").config.config.clone().expect("a run config");
    assert_eq!(config.working_dir, "/a/it's \u{1b}");
}
