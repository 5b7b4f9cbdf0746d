#include "gantry/text/chat_template.h"

#include <gtest/gtest.h>

#include <fstream>

#include "gantry/base/env.h"
#include "gantry/base/file.h"

namespace gantry::text {
namespace {

using base::OrderedJson;

std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const base::InputError& error) {
    return error.what();
  }
  return "no error";
}

const char* const kTurns =
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}";

TEST(ChatTemplate, SmolLm2RendersAsTransformersDoes) {
  const auto data = base::data_dir(GANTRY_SOURCE_DIR);
  if (!data) GTEST_SKIP() << "needs ../shared/data/llm/smollm2-golden";
  const std::string source =
      base::read_text_file(std::string(GANTRY_SOURCE_DIR) + "/tests/data/text/smollm2_chat_template.jinja");
  std::ifstream golden(*data / "llm/smollm2-golden/chat.jsonl");
  ASSERT_TRUE(golden) << "chat.jsonl is missing";
  int count = 0;
  for (std::string line; std::getline(golden, line); ++count) {
    const OrderedJson row = OrderedJson::parse(line);
    const ChatContext context{.bos_token = "<|im_start|>", .eos_token = "<|im_end|>"};
    EXPECT_EQ(render_chat(source, row["messages"], row["add_generation_prompt"].get<bool>(), context),
              row["text"].get<std::string>());
  }
  EXPECT_EQ(count, 5);
}

TEST(ChatTemplate, ToolsKeepTheOrderOfTheirKeys) {
  const OrderedJson tools = OrderedJson::parse(R"([{"type": "function", "a": {"z": 1, "b": 2}}])");
  const OrderedJson messages = OrderedJson::parse(R"([{"role": "user", "content": "x"}])");
  EXPECT_EQ(
      render_chat("{{ tools | tojson }}{{ extra }}", messages, false, {.tools = tools, .variables = {{"extra", 7}}}),
      R"([{"type": "function", "a": {"z": 1, "b": 2}}]7)");
}

TEST(ChatTemplate, SortedJsonIsAcceptedToo) {
  const base::Json messages = base::Json::parse(R"([{"role": "user", "content": "x"}])");
  EXPECT_EQ(render_chat(kTurns, messages, true, {}), "<user>x<end>\n<assistant>");
}

TEST(ChatTemplate, AssistantPartsAreFoundByRenderingPrefixes) {
  const OrderedJson messages = OrderedJson::parse(
      R"([{"role":"user","content":"a"},{"role":"assistant","content":"bé"},{"role":"user","content":"c"},
          {"role":"assistant","content":"d"}])");
  const TrainingChat chat = ChatTemplate(kTurns).render_for_training(messages, {});
  std::vector<std::string> parts;
  for (const auto& [begin, end] : chat.assistant) parts.push_back(chat.text.substr(begin, end - begin));
  EXPECT_EQ(parts, (std::vector<std::string>{"bé<end>\n", "d<end>\n"}));
}

TEST(ChatTemplate, GenerationBlocksDecideWhereTheyExist) {
  const ChatTemplate marked(
      "{% for m in messages %}{{ m.role }}:{% if m.role == 'assistant' %}{%- generation -%}{{ m.content }}!"
      "{%- endgeneration -%}{% else %}{{ m.content }}{% endif %};{% endfor %}");
  const OrderedJson messages =
      OrderedJson::parse(R"([{"role":"user","content":"a"},{"role":"assistant","content":"b"}])");
  const TrainingChat chat = marked.render_for_training(messages, {});
  EXPECT_EQ(chat.text, "user:a;assistant:b!;");
  ASSERT_EQ(chat.assistant.size(), 1u);
  EXPECT_EQ(chat.text.substr(chat.assistant[0].first, chat.assistant[0].second - chat.assistant[0].first), "b!");
}

TEST(ChatTemplate, ATemplateThatRewritesEarlierTurnsIsRefusedForMasking) {
  const ChatTemplate rewriting("{% for m in messages %}{{ loop.length }}{{ m.content }}{% endfor %}");
  const OrderedJson messages =
      OrderedJson::parse(R"([{"role":"user","content":"a"},{"role":"assistant","content":"b"}])");
  EXPECT_NE(error_of([&] { rewriting.render_for_training(messages, {}); }).find("rewrites earlier turns"),
            std::string::npos);
}

TEST(ChatTemplate, BadMessagesAreNamed) {
  const auto message = [&](const char* json) {
    return error_of([&] { render_chat(kTurns, OrderedJson::parse(json), false, {}); });
  };
  EXPECT_EQ(message("{}"), "chat template: 'messages' must be a list, found object");
  EXPECT_EQ(message("[]"), "chat template: 'messages' is empty; a conversation needs at least one");
  EXPECT_EQ(message("[1]"), "chat template: message 0 must be an object, found number");
  EXPECT_EQ(message(R"([{"role":"user"},{"content":"x"}])"), "chat template: message 1 needs a string 'role'");
  EXPECT_EQ(message(R"([{"role":"user","content":5}])"),
            "chat template: 'content' of message 0 must be a string or a list, found number");
}

TEST(ChatTemplate, ARefusalOfTheTemplateIsPassedOnWithItsLine) {
  const OrderedJson messages = OrderedJson::parse(R"([{"role": "system", "content": "x"}])");
  const std::string source =
      "{% if messages[0].role == 'system' %}\n{{ raise_exception('no system role') }}{% endif %}";
  EXPECT_EQ(error_of([&] { render_chat(source, messages, false, {}); }),
            "chat template, line 2: the template refuses this conversation: no system role");
}

}  // namespace
}  // namespace gantry::text
