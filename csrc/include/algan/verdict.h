/// @file
/// What a service says about a frame; see docs/protocol.md.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "algan/msgpack.h"

namespace algan {

/// Of one box, or of a whole frame. "unknown" is never to be taken for "pass".
struct BoxVerdict {
  std::optional<std::array<double, 4>> box;  ///< none: the whole frame
  std::string verdict;                       ///< "pass", "reject" or "unknown"
  std::string reason;                        ///< why it is not "pass"
  std::optional<double> score, p_value;
};

/// Of a frame.
struct Verdict {
  std::int64_t frame_id = 0;
  std::string camera, part_id, verdict, reason, outcome;
  std::vector<BoxVerdict> boxes;

  bool pass() const { return verdict == "pass"; }
};

/// None for null or nil.
inline std::optional<double> maybe_number(const msgpack::Value* value) {
  if (value == nullptr || value->kind == msgpack::Value::Kind::kNil) return std::nullopt;
  return value->number;
}

/// Reads one; throws ProtocolError unless it is one.
inline Verdict verdict_of(const msgpack::Value& from) {
  Verdict verdict{from.at("frame_id").integer,
                  from.at("camera").text,
                  from.at("part_id").text,
                  from.at("verdict").text,
                  from.at("reason").text,
                  from.at("outcome").text,
                  {}};
  for (const msgpack::Value& item : from.at("boxes").items) {
    BoxVerdict box;
    const msgpack::Value& corners = item.at("box");
    if (corners.items.size() == 4) {
      box.box.emplace();
      for (std::size_t i = 0; i < 4; ++i) (*box.box)[i] = corners.items[i].number;
    }
    box.verdict = item.at("verdict").text;
    box.reason = item.at("reason").text;
    box.score = maybe_number(item.find("score"));
    box.p_value = maybe_number(item.find("p_value"));
    verdict.boxes.push_back(std::move(box));
  }
  return verdict;
}

}  // namespace algan
