//! Counts the words of its arguments.

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments == ["--help"] {
        return println!("wordcount: counts the words of its arguments");
    }
    for (word, count) in words::count(&arguments.join(" ")) {
        println!("{count} {word}");
    }
}
