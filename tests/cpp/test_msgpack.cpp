// The headers of the wire protocol: written as docs/protocol.md has them, and nothing that comes is
// trusted.
#include "algan/msgpack.h"

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>

#include "algan/verdict.h"
#include "check.h"

namespace {

using algan::ProtocolError;
using algan::msgpack::Reader;
using algan::msgpack::Value;
using algan::msgpack::Writer;

std::string sample() {
  Writer out;
  out.map(9);
  out.text("small");
  out.integer(7);
  out.text("large");
  out.integer(INT64_MAX);
  out.text("negative");
  out.integer(-5'000'000'000);
  out.text("number");
  out.number(2.5);
  out.text("nil");
  out.nil();
  out.text("text");
  out.text(std::string(40, 'x'));
  out.text("bytes");
  out.binary(std::string("\0\1", 2));
  out.text("array");
  out.array(300);
  for (int i = 0; i < 300; ++i) out.integer(i);
  out.text("map");
  out.map(0);
  return out.bytes();
}

void what_is_written_can_be_read() {
  const Value value = Reader(sample()).read();
  CHECK(value.at("small").integer == 7);
  CHECK(value.at("large").integer == INT64_MAX);
  CHECK(value.at("negative").integer == -5'000'000'000);
  CHECK(value.at("number").number == 2.5);
  CHECK(value.at("nil").kind == Value::Kind::kNil);
  CHECK(value.at("text").text == std::string(40, 'x'));
  CHECK(value.at("bytes").text.size() == 2);
  CHECK(value.at("array").items.size() == 300 && value.at("array").items[299].integer == 299);
  CHECK(value.at("map").kind == Value::Kind::kMap);
  CHECK(value.find("nothing") == nullptr);
  CHECK_THROWS(value.at("nothing"), ProtocolError);
}

void as_other_writers_have_it() {
  CHECK(Reader(std::string("\xd0\xfe", 2)).read().integer == -2);
  CHECK(Reader(std::string("\xff", 1)).read().integer == -1);
  CHECK(Reader(std::string("\xcd\x01\x00", 3)).read().integer == 256);
  CHECK(Reader(std::string("\xcf\xff\xff\xff\xff\xff\xff\xff\xff", 9)).read().integer == INT64_MAX);
  CHECK(Reader(std::string("\xca\x3f\x80\x00\x00", 5)).read().number == 1.0);
  CHECK(Reader(std::string("\xc3", 1)).read().integer == 1);
  CHECK(Reader(std::string("\xd9\x01z", 3)).read().text == "z");
}

void what_is_cut_off_or_deep_is_refused() {
  const std::string whole = sample();
  for (std::size_t size = 0; size < whole.size(); ++size) {
    CHECK_THROWS(Reader(std::string_view(whole).substr(0, size)).read(), ProtocolError);
  }
  CHECK_THROWS(Reader(whole + "x").read(), ProtocolError);
  CHECK_THROWS(Reader(std::string(1000, '\x91')).read(), ProtocolError);
  CHECK_THROWS(Reader(std::string("\xdd\xff\xff\xff\xff", 5)).read(), ProtocolError);
  CHECK_THROWS(Reader(std::string("\xc1", 1)).read(), ProtocolError);
  CHECK_THROWS(Reader(std::string("\x81\x01\x01", 3)).read(), ProtocolError);
  CHECK_THROWS(algan::verdict_of(Reader("\x80").read()), ProtocolError);
}

void mutated_bytes_do_no_more_than_throw() {
  std::mt19937 random(7);
  const std::string whole = sample();
  int read = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string bytes = whole;
    for (int i = 0; i < 3; ++i) bytes[random() % bytes.size()] = static_cast<char>(random());
    try {
      read += Reader(bytes).read().kind == Value::Kind::kMap;
    } catch (const ProtocolError&) {
    }
  }
  CHECK(read > 0);
}

}  // namespace

int main() {
  what_is_written_can_be_read();
  as_other_writers_have_it();
  what_is_cut_off_or_deep_is_refused();
  mutated_bytes_do_no_more_than_throw();
  return check::failures();
}
