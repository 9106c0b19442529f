/// @file
/// A DEALER socket of libzmq that is closed with its owner.
#pragma once

#include <zmq.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "algan/error.h"
#include "algan/msgpack.h"

namespace algan {

/// CURVE, as Z85 text; all empty: none.
struct CurveKeys {
  std::string server_key = {}, public_key = {}, secret_key = {};
};

/// For one thread.
class Dealer {
 public:
  /// @param timeout  longest wait of a `send`
  /// @throws InputError     the endpoint or a key is malformed
  /// @throws ProtocolError  libzmq gives no socket
  Dealer(const std::string& endpoint, const CurveKeys& keys, std::chrono::milliseconds timeout)
      : context_(zmq_ctx_new()), socket_(zmq_socket(context_.get(), ZMQ_DEALER)) {
    if (socket_ == nullptr) throw ProtocolError(zmq_strerror(zmq_errno()));
    option(ZMQ_LINGER, 0);
    option(ZMQ_RCVHWM, 0);
    option(ZMQ_HEARTBEAT_IVL, 2000);
    option(ZMQ_HEARTBEAT_TIMEOUT, 2000);
    option(ZMQ_SNDTIMEO, static_cast<int>(timeout.count()));
    key(ZMQ_CURVE_SERVERKEY, keys.server_key);
    key(ZMQ_CURVE_PUBLICKEY, keys.public_key);
    key(ZMQ_CURVE_SECRETKEY, keys.secret_key);
    if (zmq_connect(socket_.get(), endpoint.c_str()) != 0) {
      throw InputError("endpoint: expected ipc://PATH or tcp://ADDRESS:PORT, got " + endpoint);
    }
  }

  /// Sends a message of one part, or of two where there are pixels; returns whether it was taken.
  bool send(const std::string& header, const std::vector<std::uint8_t>& pixels = {}) {
    const int more = pixels.empty() ? 0 : ZMQ_SNDMORE;
    return zmq_send(socket_.get(), header.data(), header.size(), more) >= 0 &&
           (more == 0 || zmq_send(socket_.get(), pixels.data(), pixels.size(), 0) >= 0);
  }

  /// Sends a last message if that is possible at once, and lets it have its time.
  void send_last(const std::string& header) {
    zmq_send(socket_.get(), header.data(), header.size(), ZMQ_DONTWAIT);
    option(ZMQ_LINGER, 500);
  }

  /// Calls `take` with each part that is there, waiting for the first.
  template <class Take>
  void receive(std::chrono::milliseconds timeout, Take take) {
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
      take(bytes);
    }
  }

 private:
  struct EndContext {
    void operator()(void* context) const { zmq_ctx_term(context); }
  };
  struct EndSocket {
    void operator()(void* socket) const { zmq_close(socket); }
  };

  void option(int name, int value) { zmq_setsockopt(socket_.get(), name, &value, sizeof(value)); }

  void key(int name, const std::string& text) {
    if (!text.empty() && zmq_setsockopt(socket_.get(), name, text.c_str(), text.size() + 1) != 0) {
      throw InputError("key: expected 40 characters of Z85, and a libzmq with CURVE");
    }
  }

  std::unique_ptr<void, EndContext> context_;  // outlives the socket
  std::unique_ptr<void, EndSocket> socket_;
};

}  // namespace algan
