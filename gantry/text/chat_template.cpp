#include "gantry/text/chat_template.h"

#include <algorithm>

namespace gantry::text {
namespace {

void check_messages(const base::OrderedJson& messages, const std::string& name) {
  GANTRY_CHECK(messages.is_array(), "{}: 'messages' must be a list, found {}", name, messages.type_name());
  GANTRY_CHECK(!messages.empty(), "{}: 'messages' is empty; a conversation needs at least one", name);
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const auto& message = messages[i];
    GANTRY_CHECK(message.is_object(), "{}: message {} must be an object, found {}", name, i, message.type_name());
    const auto role = message.find("role");
    GANTRY_CHECK(role != message.end() && role->is_string(), "{}: message {} needs a string 'role'", name, i);
    const auto content = message.find("content");
    const bool good = content == message.end() || content->is_string() || content->is_null() || content->is_array() ||
                      content->is_object();
    GANTRY_CHECK(good, "{}: 'content' of message {} must be a string or a list, found {}", name, i,
                 good ? "" : content->type_name());
  }
}

/// Whether the source holds a {% generation %} tag.
bool has_generation_block(std::string_view source) {
  for (std::size_t at = source.find("generation"); at != std::string_view::npos;
       at = source.find("generation", at + 1)) {
    std::size_t before = at;
    while (before > 0 && (source[before - 1] == ' ' || source[before - 1] == '\t' || source[before - 1] == '\n'))
      --before;
    if (before > 0 && (source[before - 1] == '-' || source[before - 1] == '+')) --before;
    const std::size_t end = at + std::string_view("generation").size();
    const bool word_ends = end >= source.size() || source[end] == ' ' || source[end] == '-' || source[end] == '%';
    if (before >= 2 && source.substr(before - 2, 2) == "{%" && word_ends) return true;
  }
  return false;
}

}  // namespace

ChatTemplate::ChatTemplate(std::string_view source, std::string name)
    : name_(name), marks_generation_(has_generation_block(source)), template_(source, std::move(name)) {}

jinja::Rendered ChatTemplate::run(const base::OrderedJson& messages, bool add_generation_prompt,
                                  const ChatContext& context) const {
  GANTRY_CHECK(context.variables.is_object(), "{}: the further variables must be an object, found {}", name_,
               context.variables.type_name());
  base::OrderedJson variables = {{"messages", messages},           {"tools", context.tools},
                                 {"documents", context.documents}, {"add_generation_prompt", add_generation_prompt},
                                 {"bos_token", context.bos_token}, {"eos_token", context.eos_token}};
  for (const auto& [key, value] : context.variables.items()) variables[key] = value;
  return template_.render(variables, context.now);
}

std::string ChatTemplate::render(const base::OrderedJson& messages, bool add_generation_prompt,
                                 const ChatContext& context) const {
  check_messages(messages, name_);
  return run(messages, add_generation_prompt, context).text;
}

TrainingChat ChatTemplate::render_for_training(const base::OrderedJson& messages, const ChatContext& context) const {
  check_messages(messages, name_);
  jinja::Rendered whole = run(messages, false, context);
  TrainingChat chat;
  chat.text = std::move(whole.text);
  if (marks_generation_) {
    chat.assistant = std::move(whole.generation);
    return chat;
  }
  base::OrderedJson upto = base::OrderedJson::array();
  for (std::size_t i = 0; i < messages.size(); ++i) {
    if (messages[i]["role"] == "assistant") {
      // What follows the generation prompt is what the model has to write.
      const std::string before = upto.empty() ? "" : run(upto, true, context).text;
      upto.push_back(messages[i]);
      const std::string after = i + 1 == messages.size() ? chat.text : run(upto, false, context).text;
      GANTRY_CHECK(
          after.starts_with(before) && chat.text.starts_with(after),
          "{}: the assistant's part of message {} cannot be told apart, because this template rewrites earlier "
          "turns; mark it with generation blocks or train on all tokens",
          name_, i);
      chat.assistant.emplace_back(before.size(), after.size());
    } else {
      upto.push_back(messages[i]);
    }
  }
  return chat;
}

std::string render_chat(const std::string& chat_template, const base::OrderedJson& messages, bool add_generation_prompt,
                        const ChatContext& context) {
  return ChatTemplate(chat_template).render(messages, add_generation_prompt, context);
}

std::string render_chat(const std::string& chat_template, const base::Json& messages, bool add_generation_prompt,
                        const ChatContext& context) {
  return render_chat(chat_template, base::OrderedJson(messages), add_generation_prompt, context);
}

}  // namespace gantry::text
