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

#include <zmq.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "algan/error.h"
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

struct FrameOptions {
  std::string part_id = {};                                      ///< comes back with the verdict
  std::optional<std::vector<std::array<double, 4>>> boxes = {};  ///< xyxy pixels; none: the frame
  std::optional<double> deadline_ms = {};                        ///< a later verdict is "unknown"
  std::int64_t captured_ns = 0;                                  ///< Unix time; 0: now
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
  explicit Client(ClientOptions options) : options_(std::move(options)) {
    if (options_.slots < 1) throw InputError("slots: expected at least 1");
    next_id_ = options_.next_id;
    open_socket();
    greet();
  }

  ~Client() {
    msgpack::Writer bye;
    bye.map(1);
    bye.text("type");
    bye.text("bye");
    zmq_send(socket_.get(), bye.bytes().data(), bye.bytes().size(), ZMQ_DONTWAIT);
    const int linger_ms = 500;
    zmq_setsockopt(socket_.get(), ZMQ_LINGER, &linger_ms, sizeof(linger_ms));
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
        [&](std::uint8_t* to) { copy_rows(image, to); }, more);
  }

  /// The same for pixels that are not there yet: saves a copy where there is shared memory.
  /// @param write  is called with room for height_px rows without gaps, and fills it
  template <class Write>
  std::int64_t send_in_place(std::int64_t height_px, std::int64_t width_px, PixelFormat format,
                             Write write, const FrameOptions& more = {}) {
    const ImageView image{nullptr, height_px, width_px, 0, format};
    const std::size_t count = checked_bytes(image);
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
      const Descriptor descriptor{ring->number(), slot, generation};
      return dispatch(header(image, more, &descriptor), {});
    }
    std::vector<std::uint8_t> pixels(count);
    write(pixels.data());
    return dispatch(header(image, more, nullptr), pixels);
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
  struct Descriptor {
    std::int64_t ring;
    int slot;
    std::uint64_t generation;
  };

  struct EndContext {
    void operator()(void* context) const { zmq_ctx_term(context); }
  };
  struct EndSocket {
    void operator()(void* socket) const { zmq_close(socket); }
  };

  /// Smaller frames are as fast through the socket.
  static constexpr std::size_t kSmallestShared = 64 << 10;

  void option(int name, int value) { zmq_setsockopt(socket_.get(), name, &value, sizeof(value)); }

  void open_socket() {
    context_.reset(zmq_ctx_new());
    socket_.reset(zmq_socket(context_.get(), ZMQ_DEALER));
    if (socket_ == nullptr) throw ProtocolError(zmq_strerror(zmq_errno()));
    option(ZMQ_LINGER, 0);
    option(ZMQ_RCVHWM, 0);
    option(ZMQ_HEARTBEAT_IVL, 2000);
    option(ZMQ_HEARTBEAT_TIMEOUT, 2000);
    option(ZMQ_SNDTIMEO, static_cast<int>(options_.timeout.count()));
    const std::pair<int, const std::string*> keys[] = {{ZMQ_CURVE_SERVERKEY, &options_.server_key},
                                                       {ZMQ_CURVE_PUBLICKEY, &options_.public_key},
                                                       {ZMQ_CURVE_SECRETKEY, &options_.secret_key}};
    for (const auto& [name, key] : keys) {
      if (!key->empty() &&
          zmq_setsockopt(socket_.get(), name, key->c_str(), key->size() + 1) != 0) {
        throw InputError("key: expected 40 characters of Z85, and a libzmq with CURVE");
      }
    }
    if (zmq_connect(socket_.get(), options_.endpoint.c_str()) != 0) {
      throw InputError("endpoint: expected ipc://PATH or tcp://ADDRESS:PORT, got " +
                       options_.endpoint);
    }
  }

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
    zmq_send(socket_.get(), hello.bytes().data(), hello.bytes().size(), 0);
    await([this] { return credits_ > 0; }, "no answer; is the service running there?");
  }

  static std::size_t row_bytes(const ImageView& image) {
    return static_cast<std::size_t>(image.width_px * image.pixel_bytes());
  }

  std::size_t checked_bytes(const ImageView& image) const {
    constexpr std::int64_t kMost = 65'535;
    if (image.format != PixelFormat::kBgr8 && image.format != PixelFormat::kRgb8 &&
        image.format != PixelFormat::kGrey8) {
      throw InputError("image: expected kBgr8, kRgb8 or kGrey8");
    }
    if (image.height_px < 1 || image.width_px < 1 || image.height_px > kMost ||
        image.width_px > kMost) {
      throw InputError("image: expected 1 to 65535 px high and wide");
    }
    const std::size_t count = row_bytes(image) * static_cast<std::size_t>(image.height_px);
    if (count > max_frame_bytes_) {
      throw InputError("image: expected at most " + std::to_string(max_frame_bytes_) + " bytes");
    }
    return count;
  }

  static void copy_rows(const ImageView& image, std::uint8_t* to) {
    const std::size_t row = row_bytes(image);
    if (image.row_stride == static_cast<std::ptrdiff_t>(row)) {
      std::memcpy(to, image.data, row * static_cast<std::size_t>(image.height_px));
      return;
    }
    for (std::int64_t y = 0; y < image.height_px; ++y, to += row) {
      std::memcpy(to, image.data + y * image.row_stride, row);
    }
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

  std::string header(const ImageView& image, const FrameOptions& more, const Descriptor* in) const {
    msgpack::Writer out;
    out.map(in == nullptr ? 9 : 12);
    out.text("type");
    out.text(in == nullptr ? "frame" : "slot");
    out.text("frame_id");
    out.integer(next_id_);
    out.text("height_px");
    out.integer(image.height_px);
    out.text("width_px");
    out.integer(image.width_px);
    out.text("pixel_format");
    out.text(image.format == PixelFormat::kGrey8  ? "grey8"
             : image.format == PixelFormat::kRgb8 ? "rgb8"
                                                  : "bgr8");
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    out.text("captured_ns");
    out.integer(more.captured_ns != 0
                    ? more.captured_ns
                    : std::chrono::duration_cast<std::chrono::nanoseconds>(now).count());
    out.text("part_id");
    out.text(more.part_id);
    out.text("deadline_ms");
    if (more.deadline_ms) {
      out.number(*more.deadline_ms);
    } else {
      out.nil();
    }
    write_boxes(out, more);
    if (in != nullptr) {
      out.text("ring");
      out.integer(in->ring);
      out.text("slot");
      out.integer(in->slot);
      out.text("generation");
      out.natural(in->generation);
    }
    return out.bytes();
  }

  static void write_boxes(msgpack::Writer& out, const FrameOptions& more) {
    out.text("boxes");
    if (!more.boxes) return out.nil();
    out.array(more.boxes->size());
    for (const auto& box : *more.boxes) {
      out.array(box.size());
      for (const double corner : box) out.number(corner);
    }
  }

  std::int64_t dispatch(const std::string& header, const std::vector<std::uint8_t>& pixels) {
    const int more = pixels.empty() ? 0 : ZMQ_SNDMORE;
    if (zmq_send(socket_.get(), header.data(), header.size(), more) < 0 ||
        (more != 0 && zmq_send(socket_.get(), pixels.data(), pixels.size(), 0) < 0)) {
      throw ProtocolError("not connected; the service is gone");
    }
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
    zmq_pollitem_t item{socket_.get(), 0, ZMQ_POLLIN, 0};
    if (timeout.count() > 0 && zmq_poll(&item, 1, timeout.count()) <= 0) return;
    while (true) {
      zmq_msg_t part;
      zmq_msg_init(&part);
      if (zmq_msg_recv(&part, socket_.get(), ZMQ_DONTWAIT) < 0) {
        zmq_msg_close(&part);
        return;
      }
      const std::string bytes(static_cast<const char*>(zmq_msg_data(&part)), zmq_msg_size(&part));
      zmq_msg_close(&part);
      take(msgpack::Reader(bytes).read());
    }
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
  std::unique_ptr<void, EndContext> context_;
  std::unique_ptr<void, EndSocket> socket_;
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
