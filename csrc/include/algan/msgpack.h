/// @file
/// As much of msgpack as the wire protocol needs: writing headers, and reading what a service
/// sends.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace algan {

/// A service broke the wire protocol, refuses the client, or does not answer.
class ProtocolError : public std::runtime_error {
 public:
  explicit ProtocolError(const std::string& message) : std::runtime_error(message) {}
};

namespace msgpack {

/// Writes one value after the other; maps and arrays by their size, then what is in them.
class Writer {
 public:
  void map(std::size_t pairs) { head(pairs, 0x80, 15, 0xde); }
  void array(std::size_t items) { head(items, 0x90, 15, 0xdc); }
  void nil() { byte(0xc0); }

  void integer(std::int64_t value) {
    if (value >= 0) return natural(static_cast<std::uint64_t>(value));
    byte(0xd3);
    big_endian(static_cast<std::uint64_t>(value), 8);
  }

  void natural(std::uint64_t value) {
    if (value < 128) return byte(static_cast<unsigned>(value));
    byte(0xcf);
    big_endian(value, 8);
  }

  void number(double value) {
    std::uint64_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    byte(0xcb);
    big_endian(bits, 8);
  }

  void text(std::string_view value) {
    if (value.size() < 32) {
      byte(0xa0U | static_cast<unsigned>(value.size()));
    } else {
      byte(0xdb);
      big_endian(value.size(), 4);
    }
    bytes_ += value;
  }

  void binary(std::string_view value) {
    byte(0xc6);
    big_endian(value.size(), 4);
    bytes_ += value;
  }

  const std::string& bytes() const { return bytes_; }

 private:
  void byte(unsigned value) { bytes_.push_back(static_cast<char>(value)); }

  void big_endian(std::uint64_t value, int size) {
    for (int shift = 8 * (size - 1); shift >= 0; shift -= 8) byte((value >> shift) & 0xffU);
  }

  void head(std::size_t count, unsigned small, std::size_t most, unsigned code16) {
    if (count <= most) return byte(small | static_cast<unsigned>(count));
    if (count <= 0xffff) {
      byte(code16);
      return big_endian(count, 2);
    }
    byte(code16 + 1);
    big_endian(count, 4);
  }

  std::string bytes_;
};

/// What was read: one of these, by `kind`.
struct Value {
  enum class Kind { kNil, kBool, kInteger, kNumber, kText, kArray, kMap };

  Kind kind = Kind::kNil;
  std::int64_t integer = 0;       ///< of kInteger and kBool; above 2^63 - 1 it is cut there
  double number = 0.0;            ///< of kNumber and kInteger
  std::string text;               ///< of kText, and of binary data
  std::vector<Value> items;       ///< of kArray, and the values of kMap
  std::vector<std::string> keys;  ///< of kMap

  /// The value of a key of a map, or null.
  const Value* find(std::string_view key) const {
    for (std::size_t i = 0; i < keys.size(); ++i) {
      if (keys[i] == key) return &items[i];
    }
    return nullptr;
  }

  /// The same; throws ProtocolError without one.
  const Value& at(std::string_view key) const {
    const Value* found = find(key);
    if (found == nullptr) throw ProtocolError("expected the key " + std::string(key));
    return *found;
  }
};

/// Reads one value; anything that is not whole and well-formed is a ProtocolError.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : left_(bytes) {}

  Value read() {
    Value value = next(0);
    if (!left_.empty()) throw ProtocolError("msgpack: expected one value, got more");
    return value;
  }

 private:
  static constexpr int kDeepest = 16;

  Value next(int depth) {
    if (depth > kDeepest) throw ProtocolError("msgpack: too deep");
    const std::uint64_t code = natural(1);
    if (code < 0x80) return integer(static_cast<std::int64_t>(code));
    if (code < 0x90) return map(code & 15U, depth);
    if (code < 0xa0) return array(code & 15U, depth);
    if (code < 0xc0) return text(code & 31U);
    if (code >= 0xe0) return integer(static_cast<std::int64_t>(code) - 256);
    switch (code) {
      case 0xc0:
        return {};
      case 0xc2:
      case 0xc3:
        return boolean(code == 0xc3);
      case 0xc4:
      case 0xc5:
      case 0xc6:
        return text(natural(1U << (code - 0xc4)));
      case 0xca:
        return single(natural(4));
      case 0xcb:
        return number(natural(8));
      case 0xcc:
      case 0xcd:
      case 0xce:
      case 0xcf:
        return unsigned_integer(natural(1U << (code - 0xcc)));
      case 0xd0:
      case 0xd1:
      case 0xd2:
      case 0xd3:
        return signed_integer(1U << (code - 0xd0));
      case 0xd9:
      case 0xda:
      case 0xdb:
        return text(natural(1U << (code - 0xd9)));
      case 0xdc:
      case 0xdd:
        return array(natural(code == 0xdc ? 2 : 4), depth);
      case 0xde:
      case 0xdf:
        return map(natural(code == 0xde ? 2 : 4), depth);
      default:
        throw ProtocolError("msgpack: a type that the protocol does not have");
    }
  }

  std::string_view take(std::uint64_t count) {
    if (count > left_.size()) throw ProtocolError("msgpack: cut off");
    const std::string_view taken = left_.substr(0, count);
    left_.remove_prefix(count);
    return taken;
  }

  std::uint64_t natural(unsigned size) {
    std::uint64_t value = 0;
    for (const char c : take(size)) value = value << 8 | static_cast<unsigned char>(c);
    return value;
  }

  static Value integer(std::int64_t value) {
    Value made;
    made.kind = Value::Kind::kInteger;
    made.integer = value;
    made.number = static_cast<double>(value);
    return made;
  }

  static Value unsigned_integer(std::uint64_t value) {
    constexpr std::uint64_t kMost = INT64_MAX;
    return integer(static_cast<std::int64_t>(value < kMost ? value : kMost));
  }

  Value signed_integer(unsigned size) {
    const unsigned unused = 64 - 8 * size;
    return integer(static_cast<std::int64_t>(natural(size) << unused) >> unused);
  }

  static Value boolean(bool value) {
    Value made = integer(value ? 1 : 0);
    made.kind = Value::Kind::kBool;
    return made;
  }

  static Value number(std::uint64_t bits) {
    Value made;
    made.kind = Value::Kind::kNumber;
    std::memcpy(&made.number, &bits, sizeof(made.number));
    return made;
  }

  static Value single(std::uint64_t bits) {
    const auto low = static_cast<std::uint32_t>(bits);
    float value;
    std::memcpy(&value, &low, sizeof(value));
    Value made;
    made.kind = Value::Kind::kNumber;
    made.number = static_cast<double>(value);
    return made;
  }

  Value text(std::uint64_t size) {
    Value made;
    made.kind = Value::Kind::kText;
    made.text = std::string(take(size));
    return made;
  }

  Value array(std::uint64_t count, int depth) {
    if (count > left_.size()) throw ProtocolError("msgpack: cut off");
    Value made;
    made.kind = Value::Kind::kArray;
    for (std::uint64_t i = 0; i < count; ++i) made.items.push_back(next(depth + 1));
    return made;
  }

  Value map(std::uint64_t count, int depth) {
    if (count > left_.size()) throw ProtocolError("msgpack: cut off");
    Value made;
    made.kind = Value::Kind::kMap;
    for (std::uint64_t i = 0; i < count; ++i) {
      Value key = next(depth + 1);
      if (key.kind != Value::Kind::kText) throw ProtocolError("msgpack: expected keys of text");
      made.keys.push_back(std::move(key.text));
      made.items.push_back(next(depth + 1));
    }
    return made;
  }

  std::string_view left_;
};

}  // namespace msgpack
}  // namespace algan
