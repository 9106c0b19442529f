/// @file
/// A client of the service in plain C++17: sends frames and gets their verdicts, by wire protocol
/// v1.
///
///   algan::Client client({"ipc:///run/algan/in", "press-3"});
///   client.send({pixels, height, width, 3 * width, algan::PixelFormat::kBgr8});
///   for (const algan::Verdict& verdict : client.poll(std::chrono::milliseconds(100))) ...
///
/// Needs libzmq (`-lzmq`; Debian: libzmq3-dev) and nothing else of this project.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "algan/dealer.h"
#include "algan/error.h"
#include "algan/frame_message.h"
#include "algan/image_view.h"
#include "algan/msgpack.h"
#include "algan/ring.h"
#include "algan/verdict.h"

namespace algan {

struct ClientOptions {
  std::string endpoint;                       ///< ipc://PATH or tcp://ADDRESS:PORT
  std::string camera = {};                    ///< empty: the service's own name
  std::chrono::milliseconds timeout{10'000};  ///< longest wait for an answer or a credit
  bool shared_memory = true;  ///< where the service offers it on this host; else the socket
  int slots = 8;              ///< most frames in shared memory at a time
  std::int64_t next_id = 0;   ///< of the first frame; not 0 for one that goes on after an error
  std::string server_key = {}, public_key = {}, secret_key = {};  ///< CURVE, as Z85 text
};

/// What became of the frames that were sent; those without an answer are not OK.
struct ClientAccount {
  std::uint64_t sent = 0, answered = 0, refused = 0, unanswered = 0;
};

/// One camera's connection; for one thread. It does not connect again by itself: after a
/// ProtocolError make another one, with `next_id` set to this one's.
class Client {
 public:
  /// @throws ProtocolError  the service does not answer in time or refuses the client
  /// @throws InputError     the endpoint or a key is malformed
  explicit Client(ClientOptions options)
      : options_(std::move(options)),
        dealer_(options_.endpoint, {options_.server_key, options_.public_key, options_.secret_key},
                options_.timeout),
        next_id_(options_.next_id) {
    if (options_.slots < 1) throw InputError("slots: expected at least 1");
    greet();
  }

  ~Client() {
    msgpack::Writer bye;
    bye.map(1);
    bye.text("type");
    bye.text("bye");
    dealer_.send_last(bye.bytes());
  }

  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  const std::string& camera() const { return camera_; }
  std::int64_t next_id() const { return next_id_; }
  bool shared() const { return ring_ != nullptr; }  ///< whether there is a ring now
  bool closing() const { return closing_; }         ///< whether the service takes no more frames

  ClientAccount account() const {
    ClientAccount account = account_;
    account.unanswered = outstanding_.size();
    return account;
  }

  /// Sends a frame; waits for a credit. kBgr8, kRgb8 and kGrey8, any row stride.
  /// @return its id
  /// @throws InputError     the image cannot be sent
  /// @throws ProtocolError  the service stops, or gave no credit in time
  std::int64_t send(const ImageView& image, const FrameOptions& more = {}) {
    if (image.data == nullptr) throw InputError("image: expected pixels");
    return send_in_place(
        image.height_px, image.width_px, image.format,
        [&](std::uint8_t* to) { frame_message::copy_rows(image, to); }, more);
  }

  /// The same for pixels that are not there yet: saves a copy where there is shared memory.
  /// @param write  is called with room for height_px rows without gaps, and fills it
  template <class Write>
  std::int64_t send_in_place(std::int64_t height_px, std::int64_t width_px, PixelFormat format,
                             Write write, const FrameOptions& more = {}) {
    const ImageView image{nullptr, height_px, width_px, 0, format};
    const std::size_t count = frame_message::checked_bytes(image, max_frame_bytes_);
    await([this] { return outstanding_.size() < credits_; }, "no verdict on any frame");
    if (Ring* ring = ring_for(count)) {
      await([ring] { return ring->has_room(); }, "no slot is free");
      const int slot = ring->begin();
      try {
        write(ring->pixels(slot));
      } catch (...) {
        ring->cancel(slot);
        throw;
      }
      const std::uint64_t generation = ring->commit(slot, next_id_);
      const SlotAddress address{ring->number(), slot, generation};
      return dispatch(frame_message::header(next_id_, image, more, &address), {});
    }
    std::vector<std::uint8_t> pixels(count);
    write(pixels.data());
    return dispatch(frame_message::header(next_id_, image, more, nullptr), pixels);
  }

  /// Verdicts that have come since the last call, waiting for the first if there is none.
  std::vector<Verdict> poll(std::chrono::milliseconds timeout = {}) {
    const auto give_up = std::chrono::steady_clock::now() + timeout;
    read(std::chrono::milliseconds(0));
    while (verdicts_.empty() && std::chrono::steady_clock::now() < give_up) {
      read(std::chrono::duration_cast<std::chrono::milliseconds>(give_up -
                                                                 std::chrono::steady_clock::now()) +
           std::chrono::milliseconds(1));
    }
    return std::exchange(verdicts_, {});
  }

 private:
  /// Smaller frames are as fast through the socket.
  static constexpr std::size_t kSmallestShared = 64 << 10;

  void greet() {
    msgpack::Writer hello;
    hello.map(next_id_ == 0 ? 3 : 4);
    hello.text("type");
    hello.text("hello");
    hello.text("version");
    hello.integer(1);
    hello.text("camera");
    hello.text(options_.camera);
    if (next_id_ != 0) {
      hello.text("next_id");
      hello.integer(next_id_);
    }
    dealer_.send(hello.bytes());
    await([this] { return credits_ > 0; }, "no answer; is the service running there?");
  }

  /// The ring for a frame of that size, or null: through the socket.
  Ring* ring_for(std::size_t count) {
    if (!options_.shared_memory || ring_path_.empty() || count < kSmallestShared) return nullptr;
    if (ring_ != nullptr && !ring_->alive()) ring_.reset();
    if (ring_ != nullptr && ring_->slot_bytes() >= count) return ring_.get();
    if (ring_ != nullptr) {
      await([this] { return ring_->idle(); }, "no verdict on frames in shared memory");
      ring_.reset();
    }
    const int slots = std::min(options_.slots, static_cast<int>(credits_));
    try {
      ring_ = std::make_unique<Ring>(ring_path_, ring_token_, slots, count);
    } catch (const ProtocolError&) {  // it has none to give, or is on another host
      ring_path_.clear();
    }
    return ring_.get();
  }

  std::int64_t dispatch(const std::string& header, const std::vector<std::uint8_t>& pixels) {
    if (!dealer_.send(header, pixels)) throw ProtocolError("not connected; the service is gone");
    ++account_.sent;
    outstanding_.insert(next_id_);
    return next_id_++;
  }

  template <class Condition>
  void await(Condition condition, const char* what) {
    const auto give_up = std::chrono::steady_clock::now() + options_.timeout;
    read(std::chrono::milliseconds(0));
    while (!condition()) {
      if (!why_.empty()) throw ProtocolError(why_);
      if (std::chrono::steady_clock::now() > give_up) {
        throw ProtocolError(std::string(what) + " within " +
                            std::to_string(options_.timeout.count()) + " ms");
      }
      read(std::chrono::milliseconds(50));
    }
    if (closing_) throw ProtocolError(why_);
  }

  /// Takes in all messages that are there, waiting for the first.
  void read(std::chrono::milliseconds timeout) {
    dealer_.receive(timeout,
                    [this](const std::string& bytes) { take(msgpack::Reader(bytes).read()); });
  }

  void take(const msgpack::Value& message) {
    const std::string& type = message.at("type").text;
    if (type == "welcome" && credits_ == 0) {
      welcomed(message);
    } else if (type == "result") {
      const Verdict verdict = verdict_of(message.at("verdict"));
      done_with(verdict.frame_id);
      if (outstanding_.erase(verdict.frame_id) > 0) {
        ++account_.answered;
        verdicts_.push_back(verdict);
      }
    } else if (type == "refusal") {
      refused(message);
    } else if (type == "closing") {
      closing_ = true;
      why_ = "the service is stopping and takes no more frames";
    }
  }

  void welcomed(const msgpack::Value& message) {
    camera_ = message.at("camera").text;
    credits_ = static_cast<std::size_t>(std::max<std::int64_t>(message.at("credits").integer, 1));
    max_frame_bytes_ = static_cast<std::size_t>(message.at("max_frame_bytes").integer);
    const msgpack::Value* offer = message.find("ring");
    if (offer != nullptr && offer->kind == msgpack::Value::Kind::kMap) {
      ring_path_ = offer->at("path").text;
      ring_token_ = offer->at("token").text;
    }
  }

  void refused(const msgpack::Value& message) {
    const std::string& code = message.at("code").text;
    const msgpack::Value* frame_id = message.find("frame_id");
    if (frame_id != nullptr && frame_id->kind == msgpack::Value::Kind::kInteger) {
      done_with(frame_id->integer);
      account_.refused += outstanding_.erase(frame_id->integer);
    }
    if (credits_ == 0 || code == "superseded" || code == "hello_first") {
      closing_ = true;
      why_ = "refused (" + code + "): " + message.at("message").text;
    }
  }

  void done_with(std::int64_t frame_id) {
    if (ring_ != nullptr) ring_->answered(frame_id);
  }

  ClientOptions options_;
  Dealer dealer_;
  std::unique_ptr<Ring> ring_;
  std::string camera_, ring_path_, ring_token_, why_;
  std::size_t credits_ = 0, max_frame_bytes_ = 0;
  std::int64_t next_id_ = 0;
  bool closing_ = false;
  std::set<std::int64_t> outstanding_;
  std::vector<Verdict> verdicts_;
  ClientAccount account_;
};

}  // namespace algan
