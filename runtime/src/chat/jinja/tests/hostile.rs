//! Templates that mean harm: an answer or one error within a second of processor time, 256 MB, and a stack of one.
//!
//! With an engine that counts instructions (minijinja 3.0.5), 62 of these 88 ended the process or failed otherwise.

use super::*;
use crate::bounded::bounded_tests;

/// Runs `source`; an error must be one line of sane length, and is returned.
fn end_of(source: &str) -> Option<String> {
    let message = match put_out(source) {
        Ok(text) => {
            assert!(text.len() <= 1 << 20);
            return None;
        }
        Err(JinjaError::Unreadable(why)) => why,
        Err(JinjaError::Failed(failure)) => {
            assert!(failure.line > 0, "{failure:?}");
            format!("{:?}", failure.kind)
        }
        Err(JinjaError::NoThread(error)) => panic!("{error}"),
    };
    assert!(message.len() < 1000 && !message.contains('\n'), "{message}");
    Some(message)
}

/// Runs `source`, which must be stopped.
fn stopped(source: &str) -> String {
    end_of(source).unwrap_or_else(|| panic!("{:.200} came to an end", source))
}

/// `source` with `part` in place of `@`, so many times.
fn many(source: &str, part: &str, n: usize) -> String {
    source.replace('@', &part.repeat(n))
}

/// `{{ … }}` with a variable that a loop of 99 turns, or of 99 × 999, changes.
fn repeated(change: &str, use_of_it: &str) -> String {
    format!(
        "{{% set ns = namespace(x='ab', l=[1]) %}}{{% for i in range(99) %}}{{% for j in range(999) %}}{change}{{% endfor %}}\
         {{% endfor %}}{{{{ {use_of_it} }}}}"
    )
}

bounded_tests! {
    fn minus_signs() { stopped(&many("{{ @1 }}", "-", 100_000)); }
    fn minus_signs_apart() { stopped(&many("{{ @1 }}", "- ", 100_000)); }
    fn not_not() { stopped(&many("{{ @1 }}", "not ", 50_000)); }
    fn sums() { stopped(&many("{{ 1@ }}", "+1", 100_000)); }
    fn products() { stopped(&many("{{ 1@ }}", "*1", 100_000)); }
    fn powers() { stopped(&many("{{ 1@ }}", "**1", 80_000)); }
    fn ands() { stopped(&many("{{ 1@ }}", " and 1", 40_000)); }
    fn comparisons() { stopped(&many("{{ 1@ }}", "<1", 100_000)); }
    fn concatenations() { stopped(&many("{{ 1@ }}", "~1", 100_000)); }
    fn attributes() { stopped(&many("{{ a@ }}", ".b", 100_000)); }
    fn subscripts() { stopped(&many("{{ a@ }}", "[0]", 80_000)); }
    fn calls() { stopped(&many("{{ a@ }}", "()", 100_000)); }
    fn filters() { stopped(&many("{{ 'a'@ }}", "|length", 30_000)); }
    fn tests() { stopped(&many("{{ 1@ }}", " is odd", 30_000)); }
    fn ternaries() { stopped(&many("{{ @1 }}", "1 if 1 else ", 20_000)); }
    fn ternaries_without_else() { stopped(&many("{{ 1@ }}", " if 1", 50_000)); }
    fn filter_blocks() { stopped(&many("{% filter upper@ %}a{% endfilter %}", "|upper", 40_000)); }
    fn set_filters() { stopped(&many("{% set x | upper@ %}a{% endset %}", "|upper", 40_000)); }
    fn elifs() { stopped(&many("{% if 0 %}@{% endif %}", "{% elif 0 %}", 20_000)); }
    fn ifs() { stopped(&format!("{}{}", "{% if 1 %}".repeat(10_000), "{% endif %}".repeat(10_000))); }
    fn fors() { stopped(&format!("{}{}", "{% for a in b %}".repeat(5_000), "{% endfor %}".repeat(5_000))); }
    fn lists() { stopped(&format!("{{{{ {}{} }}}}", "[".repeat(100_000), "]".repeat(100_000))); }
    fn parentheses() { stopped(&format!("{{{{ {}1{} }}}}", "(".repeat(100_000), ")".repeat(100_000))); }
    fn mappings() { stopped(&format!("{{{{ {}1{} }}}}", "{1:".repeat(50_000), "}".repeat(50_000))); }
    fn slices() { stopped(&format!("{{{{ {}1{} }}}}", "a[:".repeat(50_000), "]".repeat(50_000))); }
    fn arguments() { stopped(&format!("{{{{ {}1{} }}}}", "f(".repeat(80_000), ")".repeat(80_000))); }
    fn targets() { stopped(&format!("{{% set {}a{} = 1 %}}", "(".repeat(100_000), ")".repeat(100_000))); }
    fn namespaces_of_namespaces() { stopped(&many("{% set a@ = 1 %}", ".b", 100_000)); }
    fn megabytes_of_text() { stopped(&"x".repeat(64 << 20)); }
    fn megabytes_of_tags() { stopped(&"{{1}}".repeat(1 << 20)); }
    fn as_many_tags_as_are_read() { assert_eq!(end_of(&"{{1}}".repeat(50_000)), None); }
    fn a_list_as_long_as_is_read() { assert_eq!(end_of(&format!("{{{{ [{}]|length }}}}", "1,".repeat(120_000))), None); }
    fn open_comments() { stopped(&"{#".repeat(100_000)); }
    fn open_raws() { stopped(&"{% raw %}".repeat(20_000)); }
    fn open_blocks() { stopped(&"{%".repeat(100_000)); }
    fn open_strings() { stopped(&"{{'".repeat(80_000)); }
    fn spaces_before_blocks() { assert_eq!(end_of(&format!("{}{{% set a = 1 %}}", " ".repeat(5)).repeat(10_000)), None); }

    fn a_namespace_within_itself() {
        for end in ["{{ ns }}", "{{ ns == ns }}", "{{ ns|tojson }}", "{{ ns.a.a.a }}", ""] {
            let why = stopped(&format!("{{% set ns = namespace() %}}{{% set ns.a = ns %}}{end}"));
            assert!(why.contains("namespace"), "{why}");
        }
        stopped("{% set ns = namespace() %}{% set ns.a = [ns] %}{{ ns }}");
        stopped("{% set ns = namespace() %}{% set ns.a = {'x': ns} %}{{ ns }}");
        stopped("{% set ns = namespace() %}{% for x in [ns] %}{% set ns.a = loop %}{% endfor %}{{ ns }}");
        assert_eq!(put_out("{% set ns = namespace(a=1) %}{{ ns }}").unwrap(), "<Namespace {'a': 1}>");
    }
    fn lists_nested_by_a_loop() {
        for used in ["ns.l", "ns.l == ns.l", "ns.l|tojson", "ns.l|string|length", "1"] {
            let why = stopped(&repeated("{% set ns.l = [ns.l] %}", used));
            assert!(why.contains("levels of lists"), "{why}");
        }
    }
    fn mappings_nested_by_a_loop() { stopped(&repeated("{% set ns.l = {'a': ns.l} %}", "ns.l")); }
    fn tuples_nested_by_a_loop() { stopped(&repeated("{% set ns.l = (ns.l, 1) %}", "ns.l")); }
    fn methods_nested_by_a_loop() { stopped(&repeated("{% set ns.l = [ns.l].index %}", "ns.l")); }
    fn slices_nested_by_a_loop() { assert_eq!(end_of(&repeated("{% set ns.l = ns.l[:] %}", "ns.l")), None); }
    fn loops_kept_by_a_loop() {
        stopped("{% set ns = namespace(l=[1]) %}{% for i in range(9999) %}{% for x in ns.l %}{% set ns.l = [loop] %}{% endfor %}{% endfor %}");
    }
    fn lists_that_double() { stopped(&repeated("{% set ns.l = ns.l + ns.l %}", "ns.l|length")); }
    fn lists_of_one_twice() {
        // Sixty levels, each twice the one below it: little to hold, for ever to walk.
        let twice = "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}";
        stopped(&format!("{twice}{{{{ ns.l }}}}"));
        stopped(&format!("{twice}{{{{ ns.l|tojson }}}}"));
        stopped(&format!("{twice}{{% set a = ns.l %}}{twice}{{{{ ns.l == a }}}}"));
        stopped(&format!("{twice}{{% set a = ns.l %}}{twice}{{{{ ns.l < a }}}}"));
    }
    fn texts_doubled_by_tilde() { stopped(&repeated("{% set ns.x = ns.x ~ ns.x %}", "ns.x|length")); }
    fn texts_doubled_by_plus() { stopped(&repeated("{% set ns.x = ns.x + ns.x %}", "ns.x|length")); }
    fn texts_doubled_by_times() { stopped(&repeated("{% set ns.x = ns.x * 2 %}", "ns.x|length")); }
    fn texts_doubled_by_replace() { stopped(&repeated("{% set ns.x = ns.x|replace('a', 'aa') %}", "ns.x|length")); }
    fn texts_doubled_by_replace_method() { stopped(&repeated("{% set ns.x = ns.x.replace('', 'a') %}", "ns.x|length")); }
    fn texts_doubled_by_join() { stopped(&repeated("{% set ns.x = ns.x|join(ns.x) %}", "ns.x|length")); }
    fn texts_doubled_by_join_method() { stopped(&repeated("{% set ns.x = ns.x.join([ns.x, ns.x]) %}", "ns.x|length")); }
    fn texts_doubled_by_format() { stopped(&repeated("{% set ns.x = '%s%s'|format(ns.x, ns.x) %}", "ns.x|length")); }
    fn texts_doubled_by_format_method() { stopped(&repeated("{% set ns.x = '{0}{0}'.format(ns.x) %}", "ns.x|length")); }
    fn texts_doubled_by_percent() { stopped(&repeated("{% set ns.x = '%s%s' % (ns.x, ns.x) %}", "ns.x|length")); }
    fn texts_doubled_by_tojson() { stopped(&repeated("{% set ns.x = (ns.x ~ '\"')|tojson %}", "ns.x|length")); }
    fn texts_doubled_by_escape() { stopped(&repeated("{% set ns.x = ('<' ~ ns.x)|e ~ ns.x %}", "ns.x|length")); }
    fn texts_doubled_by_blocks() { stopped(&repeated("{% set ns.y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set t %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = t %}", "ns.x|length")); }
    fn texts_doubled_by_macros() { stopped(&format!("{{% macro m(x) %}}{{{{ x }}}}{{{{ x }}}}{{% endmacro %}}{}", repeated("{% set ns.x = m(ns.x) %}", "ns.x|length"))); }
    fn texts_doubled_by_upper() { stopped(&repeated("{% set ns.x = (ns.x ~ 'ΐ')|upper ~ ns.x %}", "ns.x|length")); }
    fn texts_doubled_by_sum() { stopped(&repeated("{% set ns.x = [ns.x, ns.x]|sum(start='') %}", "ns.x|length")); }
    fn repetitions() {
        for expression in [
            "'x' * 900000000", "900000000 * 'x'", "'x' * 1000000000000", "[1] * 1000000000000", "'ab' * 9223372036854775807",
        ] {
            stopped(&format!("{{{{ ({expression})|length }}}}"));
        }
    }
    fn indents() {
        stopped("{{ 'a\nb'|indent(1000000000) }}");
        stopped("{{ 'a\nb'|indent(9223372036854775807, true, true) }}");
        stopped("{{ ('\n' * 99999)|indent('x' * 99999, blank=true) }}");
    }
    fn batches() {
        assert_eq!(put_out("{{ words|batch(1000000000000) }}").unwrap(), "[['b', 'a', 'C']]");
        stopped("{{ words|batch(1000000000000, 0) }}");
        stopped("{{ words|batch(9223372036854775807, 'x') }}");
    }
    fn slicings() {
        stopped("{{ words|slice(1000000000000)|list }}");
        stopped("{{ words|slice(9223372036854775807, 1)|list }}");
    }
    fn json_indents() {
        stopped("{{ d|tojson(indent=3000000000) }}");
        stopped("{{ d|tojson(indent=9223372036854775807) }}");
        stopped("{{ words|tojson(indent='x' * 30000000) }}");
        stopped("{{ words|tojson(separators=['x' * 30000000, 'y']) }}");
    }
    fn precisions() {
        for format in ["%.1000000000f", "%1000000000d", "%.99999999999999999999f", "%99999999999999999999s", "%01000000000d", "%-1000000000s", "%.70000f"] {
            stopped(&format!("{{{{ '{format}'|format(1) }}}}"));
            stopped(&format!("{{{{ '{format}' % 1 }}}}"));
        }
        assert_eq!(put_out("{{ '%.1000000000s' % 'ab' }}").unwrap(), "ab");
    }
    fn paddings() {
        for method in ["center", "ljust", "rjust", "zfill"] {
            stopped(&format!("{{{{ 'a'.{method}(10000000000) }}}}"));
        }
        stopped("{{ 'a'|center(10000000000) }}");
    }
    fn ranges() {
        stopped("{{ range(1000000000000)|list|length }}");
        stopped("{{ range(-9223372036854775808, 9223372036854775807)|length }}");
        stopped("{% for i in range(99999) %}{{ range(99999)|length }}{% endfor %}");
    }
    fn loops_within_loops() {
        stopped("{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor %}");
    }
    fn filtered_loops() { stopped(&many("@", "{% for a in range(99999) if false %}{% endfor %}", 100)); }
    fn macros_that_call_themselves() {
        stopped("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}");
        stopped("{% macro f(x) %}{{ f(x ~ x) }}{{ f(x) }}{% endmacro %}{{ f('ab') }}");
        stopped("{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}");
        stopped("{% macro f() %}{% call f() %}{{ caller() }}{% endcall %}{% endmacro %}{{ f() }}");
    }
    fn includes() { stopped("{% include 'chat template' %}"); stopped("{% extends 'chat template' %}"); }
    fn output_without_end() { stopped("{% for a in range(9999) %}{{ 'x' * 9999 }}{% endfor %}"); }
    fn searches_in_long_lists() { stopped("{% set l = range(99999) %}{% for a in l %}{% if -1 in l %}{% endif %}{% endfor %}"); }
    fn searches_in_long_texts() { stopped("{% set l = 'ab' * 500000 %}{% for a in range(99999) %}{% if 'b' * 9 in l %}{% endif %}{% endfor %}"); }
    fn comparisons_of_long_texts() { stopped("{% set l = 'ab' * 500000 %}{% set m = 'ab' * 500000 %}{% for a in range(99999) %}{% if l == m or l < m %}{% endif %}{% endfor %}"); }
    fn methods_of_long_texts() {
        for method in ["strip('abc' * 99)", "find('x')", "isalpha()", "startswith('b')", "split('x')", "count('x')", "islower()", "partition('x')", "removeprefix('x')"] {
            stopped(&format!("{{% set l = 'ab' * 500000 %}}{{% for a in range(99999) %}}{{% set x = l.{method} %}}{{% endfor %}}"));
        }
    }
    fn sorts_of_long_lists() { stopped("{% for a in range(99) %}{% set x = range(99999)|sort(reverse=true) %}{% endfor %}"); }
    fn long_lists_of_different_values() { stopped("{{ range(99999)|unique|list|length }}"); }
    fn filters_of_long_lists() {
        for filter in ["map('string')", "select('odd')", "join", "sum", "max", "reverse", "batch(1)", "list", "map(attribute='a')"] {
            stopped(&format!("{{% set l = range(99999) %}}{{% for a in range(9999) %}}{{% set x = l|{filter} %}}{{% endfor %}}"));
        }
    }
    fn mappings_of_many_keys() {
        stopped("{% set ns = namespace(d={}) %}{% for a in range(99999) %}{% set ns.d = dict(ns.d, **{a|string: a}) %}{% endfor %}");
    }
    fn namespaces_of_many_names() {
        let sets: String = (0..9000).map(|i| format!("{{% set ns.n{i} = 1 %}}")).collect();
        stopped(&format!("{{% set ns = namespace() %}}{{% for a in range(999) %}}{sets}{{% endfor %}}"));
    }
    fn arguments_without_end() {
        stopped("{{ f(*range(99999)) }}");
        stopped("{% macro f(a) %}{% endmacro %}{% for i in range(999) %}{{ f(1, **dict(a=range(9))) }}{% endfor %}");
        stopped("{% for i in range(9999) %}{% set x = loop.cycle(*range(99999)) %}{% endfor %}");
    }
    fn messages_without_end() {
        let why = stopped("{{ raise_exception('x' * 10000000) }}");
        assert!(why.len() < 600, "{} bytes", why.len());
        stopped("{{ raise_exception(['x' * 100000] * 100) }}");
    }
    fn numbers_out_of_range() {
        for expression in [
            "9223372036854775807 + 1", "-9223372036854775807 - 2", "9223372036854775807 * 9", "2 ** 64", "1 / 0", "1 // 0", "1 % 0",
            "1.0 % 0", "99999999999999999999999", "(-9223372036854775807 - 1) // -1", "(-9223372036854775807 - 1)|abs",
            "-(-9223372036854775807 - 1)", "9 ** 9 ** 9", "340282366920938463463374607431768211455",
        ] {
            stopped(&format!("{{{{ {expression} }}}}"));
        }
        for expression in [
            "2.0 ** 9999", "1e400", "'9' * 400 | int", "1e300 * 1e300 | int", "(1e308 * 10)|round(300)", "words[9223372036854775807]",
            "words[-9223372036854775807:9223372036854775807:9223372036854775807]", "word[::-9223372036854775807]", "n|round(-9223372036854775807)",
            "word.split(' ', 9223372036854775807)", "word|truncate(-9223372036854775807)", "word.find('o', -9223372036854775807)",
        ] {
            end_of(&format!("{{{{ {expression} }}}}"));
        }
    }
    fn dates_without_end() { stopped("{{ strftime_now('%A' * 40000000) }}"); }
}

#[test]
fn deep_values_of_the_caller_are_refused() {
    let mut deep = json!(1);
    for _ in 0..300 {
        deep = json!([deep]);
    }
    let error = render("{{ x }}", &[("x", deep)], 1000).unwrap_err();
    let failed = matches!(&error, JinjaError::Failed(failure) if matches!(failure.kind, FailureKind::Costly(_)));
    assert!(failed, "{error:?}");
}
