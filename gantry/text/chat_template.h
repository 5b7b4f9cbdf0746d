#pragma once
// Chat templates: conversations to the text a model was trained on.
#include <ctime>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gantry/base/json.h"
#include "gantry/text/jinja_template.h"

namespace gantry::text {

/// What a template sees besides the messages. Objects keep the order of their keys, which tojson shows.
struct ChatContext {
  std::string bos_token = {};
  std::string eos_token = {};
  base::OrderedJson tools = nullptr;                          // list of tool schemas, or null
  base::OrderedJson documents = nullptr;                      // list of {title, text}, or null
  base::OrderedJson variables = base::OrderedJson::object();  // further names, e.g. enable_thinking
  std::optional<std::tm> now = {};                            // for strftime_now; unset: the local time
};

/// A conversation as training text: the byte ranges [first, second) that the assistant wrote, end-of-turn tokens
/// included. Ranges are in order and do not overlap.
struct TrainingChat {
  std::string text;
  std::vector<std::pair<std::size_t, std::size_t>> assistant;
};

/// A parsed template, for rendering many conversations. Immutable and safe to share between threads.
class ChatTemplate {
 public:
  /// `name` (a file, "chat template") starts the messages of errors. Throws InputError naming the line.
  explicit ChatTemplate(std::string_view source, std::string name = "chat template");

  /// `messages`: a list of objects with a string `role` and, mostly, `content`. Throws InputError for other shapes, for
  /// what the template refuses and for its own errors.
  std::string render(const base::OrderedJson& messages, bool add_generation_prompt, const ChatContext& context) const;

  /// Renders a whole conversation and finds the parts of the assistant: from {% generation %} blocks where the template
  /// has them, else by rendering the conversation up to each assistant turn with and without it. Throws InputError
  /// where the latter is not possible because the template rewrites earlier turns.
  TrainingChat render_for_training(const base::OrderedJson& messages, const ChatContext& context) const;

 private:
  jinja::Rendered run(const base::OrderedJson& messages, bool add_generation_prompt, const ChatContext& context) const;

  std::string name_;
  bool marks_generation_;
  jinja::Template template_;
};

/// Parses and renders once.
std::string render_chat(const std::string& chat_template, const base::OrderedJson& messages, bool add_generation_prompt,
                        const ChatContext& context);
/// The same for JSON whose keys are sorted already.
std::string render_chat(const std::string& chat_template, const base::Json& messages, bool add_generation_prompt,
                        const ChatContext& context);

}  // namespace gantry::text
