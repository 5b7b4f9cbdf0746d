// Errors and limits of templates.
#include "gantry/text/jinja_template.h"

#include <gtest/gtest.h>

#include <thread>

namespace gantry::text::jinja {
namespace {

std::string render_error(const std::string& source, const char* variables = "{}", const RenderLimits& limits = {}) {
  try {
    return "rendered: " +
           Template(source, "t").render(base::OrderedJson::parse(variables), {}, limits).text.substr(0, 80);
  } catch (const base::InputError& error) {
    return error.what();
  }
}

TEST(JinjaErrors, SyntaxErrorsNameTheLine) {
  EXPECT_EQ(render_error("a\n{% if x %}\nb"), "t, line 2: 'if' is never closed with 'endif'");
  EXPECT_EQ(render_error("\n\n{{ 1 + }}"), "t, line 3: expected an expression, found '}}'");
  EXPECT_EQ(render_error("{{ x"), "t, line 1: '{{' is never closed");
  EXPECT_EQ(render_error("{% for x of y %}{% endfor %}"), "t, line 1: expected 'in', found 'of'");
  EXPECT_EQ(render_error("{{ (1 }}"), "t, line 1: unexpected '}'");
  EXPECT_EQ(render_error("{% endfor %}"), "t, line 1: 'endfor' closes nothing that is open");
  EXPECT_EQ(render_error("{# x"), "t, line 1: a comment '{#' is never closed with '#}'");
  EXPECT_EQ(render_error("{% break %}"), "t, line 1: 'break' stands outside of a loop");
  EXPECT_NE(render_error("{% include 'x' %}").find("the statement 'include' is not supported"), std::string::npos);
  EXPECT_EQ(render_error("{{ f(*x) }}"), "t, line 1: '*' and '**' arguments are not supported");
  EXPECT_EQ(render_error("{{ 99999999999999999999 }}"), "t, line 1: the number 99999999999999999999 is out of range");
}

TEST(JinjaErrors, FailuresWhileRenderingNameTheLine) {
  EXPECT_EQ(render_error("\n{{ x.y }}"), "t, line 2: 'x' is undefined, so it has no attribute 'y'");
  EXPECT_EQ(render_error("{{ 'a' + 1 }}"), "t, line 1: '+' is not defined between str and int");
  EXPECT_EQ(render_error("{{ 1 // 0 }}"), "t, line 1: division by zero");
  EXPECT_EQ(render_error("{{ x | nope }}"), "t, line 1: there is no filter 'nope'");
  EXPECT_EQ(render_error("{{ x is nope }}"), "t, line 1: there is no test 'nope'");
  EXPECT_EQ(render_error("{{ f() }}"), "t, line 1: the function 'f' is not defined");
  EXPECT_EQ(render_error("{{ 'a'.format(1) }}"), "t, line 1: a str has no method 'format' that templates may call");
  EXPECT_EQ(render_error("{{ d.update({}) }}", R"({"d": {}})"),
            "t, line 1: a dict has no method 'update' that templates may call");
  EXPECT_EQ(render_error("{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}"),
            "t, line 1: macro 'm' takes 1 arguments, not 2");
  EXPECT_EQ(render_error("{{ x | tojson }}"), "t, line 1: tojson: the value 'x' is undefined");
  EXPECT_EQ(render_error("{{ 9223372036854775807 + 1 }}"), "t, line 1: an integer leaves the range of 64 bits");
  EXPECT_EQ(render_error("{{ strftime_now('%9999d') }}"), "t, line 1: strftime_now: unknown conversion in '%9999d'");
  EXPECT_EQ(render_error("{{ 1 }}", "[]"), "t: the variables must be an object, found array");
}

TEST(JinjaLimits, LoopsEnd) {
  const std::string nested =
      "{% for a in range(99999) %}{% for b in range(99999) %}{% set x = a %}{% endfor %}{% endfor %}";
  EXPECT_EQ(render_error(nested, "{}", {.max_steps = 100000}),
            "t, line 1: the template runs too long; its step limit is spent");
}

TEST(JinjaLimits, TextCannotGrowWithoutBound) {
  const char* const kSpent = "t, line 1: the template makes too much text; its size limit is spent";
  const RenderLimits small{.max_bytes = 1 << 20};
  EXPECT_EQ(render_error("{% set n = namespace(s='x') %}{% for i in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}",
                         "{}", small),
            kSpent);
  EXPECT_EQ(render_error("{{ 'x' * 9999999999 }}", "{}", small), kSpent);
  EXPECT_EQ(render_error("{{ [1] * 9999999999 }}", "{}", small), kSpent);
  EXPECT_EQ(render_error("{% for i in range(99999) %}0123456789012345{% endfor %}", "{}", small), kSpent);
  EXPECT_EQ(render_error("{{ 'ab' | indent(999999999) }}", "{}", small), kSpent);
  EXPECT_EQ(render_error("{% set n = namespace(l=[1]) %}{% for i in range(99) %}{% set n.l = [n.l, n.l] %}{% endfor %}"
                         "{{ n.l }}",
                         "{}", small),
            kSpent);
  EXPECT_EQ(render_error("{{ 'x' * -5 }}|{{ '' * 9999999999 }}", "{}", small), "rendered: |");
}

TEST(JinjaLimits, RecursionEnds) {
  EXPECT_EQ(render_error("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"),
            "t, line 1: the template recurses too deeply");
  EXPECT_EQ(render_error("{{ " + std::string(5000, '(') + "1" + std::string(5000, ')') + " }}"),
            "t, line 1: the expression nests too deeply");
  std::string sum = "{{ 1";
  for (int i = 0; i < 5000; ++i) sum += " + 1";
  EXPECT_EQ(render_error(sum + " }}"), "t, line 1: the expression is too long; split it with 'set'");
  std::string blocks;
  for (int i = 0; i < 5000; ++i) blocks += "{% if 1 %}";
  EXPECT_EQ(render_error(blocks), "t, line 1: blocks nest too deeply");
}

TEST(JinjaLimits, DataCannotNestWithoutBound) {
  const std::string grow = "{% set n = namespace(l=[]) %}{% for i in range(5000) %}{% set n.l = %} {% endfor %}";
  for (const std::string next : {"[n.l]", "{'k': n.l}", "(n.l,)", "[n.l.append]"}) {
    std::string source = grow;
    source.replace(source.find("%} {%"), 5, next + " %} {%");
    EXPECT_EQ(render_error(source), "t, line 1: lists and dicts nest deeper than 120 levels") << next;
  }
}

TEST(JinjaLimits, ValuesThatHoldThemselvesAreFreedAndNotFollowedForever) {
  EXPECT_EQ(render_error("{% set n = namespace() %}{% set n.self = n %}{{ n.self.self is defined }}"),
            "rendered: True");
  EXPECT_EQ(render_error("{% set l = [] %}{% set _ = l.append(l) %}{{ l | length }}"), "rendered: 1");
  EXPECT_EQ(render_error("{% set l = [] %}{% set _ = l.append(l) %}{{ l }}"),
            "t, line 1: a value nests too deeply to be printed");
  EXPECT_EQ(
      render_error("{% set a = [] %}{% set b = [] %}{% set _ = a.append(b) %}{% set _ = b.append(a) %}{{ a == b }}"),
      "t, line 1: values nest too deeply to be compared");
  EXPECT_EQ(render_error("{% set n = namespace() %}{% set n.self = n %}{{ n }}"),
            "t, line 1: a value nests too deeply to be printed");
}

TEST(JinjaTemplate, ListAppendIsAllowed) {
  EXPECT_EQ(render_error("{% set l = [1] %}{% set _ = l.append(2) %}{{ l }}"), "rendered: [1, 2]");
}

TEST(JinjaTemplate, TextWithBytesThatAreNoUtf8PassesThrough) {
  const Template source("{{ x }}\xff{{ x | upper }}{{ 'a\xffz'[1:] }}{{ 'a\xff' | length }}");
  EXPECT_EQ(source.render({{"x", "\xfe"}}).text, "\xfe\xff\xfe\xffz2");
}

TEST(JinjaTemplate, OneTemplateRendersFromManyThreads) {
  const Template source("{% for m in l %}{{ m | upper }}{{ loop.index }}{% endfor %}");
  std::vector<std::thread> threads;
  std::vector<std::string> results(4);
  for (auto& result : results) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) result = source.render({{"l", {"a", "b"}}}).text;
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(results, std::vector<std::string>(4, "A1B2"));
}

}  // namespace
}  // namespace gantry::text::jinja
