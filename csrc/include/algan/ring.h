/// @file
/// A ring of slots in shared memory that a service made for this client; see docs/protocol.md.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "algan/msgpack.h"

namespace algan {

/// Only glibc's _GNU_SOURCE shows these.
inline constexpr int kGetSeals = 1034;    // F_GET_SEALS
inline constexpr int kSeals = 1 | 2 | 4;  // F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW

/// Owns the lease (a connection) and the mapping; both end with it.
class Ring {
 public:
  /// @param path        Unix socket, from the welcome
  /// @param token       from the welcome
  /// @param slots       1 to the credits
  /// @param slot_bytes  1 to the largest frame
  /// @throws ProtocolError  there is no memory to be had, and why
  Ring(const std::string& path, const std::string& token, int slots, std::size_t slot_bytes)
      : slot_bytes_(slot_bytes), generations_(static_cast<std::size_t>(slots), 0) {
    try {
      connect_to(path);
      attach(token, slots);
    } catch (...) {
      close_all();
      throw;
    }
    for (int slot = slots; slot-- > 0;) free_.push_back(slot);
  }

  ~Ring() { close_all(); }
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  std::size_t slot_bytes() const { return slot_bytes_; }
  std::int64_t number() const { return number_; }
  bool has_room() const { return !free_.empty(); }
  bool idle() const { return free_.size() == generations_.size(); }

  /// Whether the service still holds its end.
  bool alive() const {
    char byte;
    return recv(connection_, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 &&
           (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR);
  }

  /// Takes a free slot, of which there must be one, and marks it as being written.
  int begin() {
    const int slot = free_.back();
    free_.pop_back();
    const std::uint64_t generation = ++generations_[static_cast<std::size_t>(slot)];
    __atomic_store_n(word(slot), generation << 1 | 1U, __ATOMIC_RELEASE);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);  // before the first pixel
    return slot;
  }

  std::uint8_t* pixels(int slot) {
    return memory_ + first_byte_ + static_cast<std::size_t>(slot) * stride_bytes_;
  }

  /// Marks a slot as written, and the service's until `answered`; returns its generation.
  std::uint64_t commit(int slot, std::int64_t frame_id) {
    const std::uint64_t generation = generations_[static_cast<std::size_t>(slot)];
    __atomic_store_n(word(slot), generation << 1, __ATOMIC_RELEASE);
    by_frame_[frame_id] = slot;
    return generation;
  }

  /// Gives a slot back that was not sent.
  void cancel(int slot) { free_.push_back(slot); }

  /// The service has done with a frame.
  void answered(std::int64_t frame_id) {
    const auto found = by_frame_.find(frame_id);
    if (found == by_frame_.end()) return;
    free_.push_back(found->second);
    by_frame_.erase(found);
  }

 private:
  void connect_to(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof(address.sun_path)) throw ProtocolError("ring: the path is too long");
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    connection_ = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    const timeval patience{10, 0};
    if (connection_ < 0 ||
        setsockopt(connection_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) != 0 ||
        connect(connection_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
      throw ProtocolError("ring: " + path + ": " + std::strerror(errno));
    }
  }

  void attach(const std::string& token, int slots) {
    msgpack::Writer request;
    request.map(4);
    request.text("type");
    request.text("attach");
    request.text("token");
    request.binary(token);
    request.text("slots");
    request.integer(slots);
    request.text("slot_bytes");
    request.natural(slot_bytes_);
    const std::string& packet = request.bytes();
    if (send(connection_, packet.data(), packet.size(), MSG_NOSIGNAL) < 0) {
      throw ProtocolError(std::string("ring: ") + std::strerror(errno));
    }
    int descriptor = -1;
    const msgpack::Value answer = msgpack::Reader(receive(&descriptor)).read();
    try {
      if (answer.at("type").text != "attached" || descriptor < 0) {
        const msgpack::Value* why = answer.find("message");
        throw ProtocolError(why == nullptr ? "ring: expected memory, got none" : why->text);
      }
      number_ = answer.at("ring").integer;
      map_memory(answer, descriptor, static_cast<std::size_t>(slots));
    } catch (...) {
      if (descriptor >= 0) close(descriptor);
      throw;
    }
    close(descriptor);
  }

  std::string receive(int* descriptor) {
    char packet[4096];
    iovec part{packet, sizeof(packet)};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    const ssize_t size = recvmsg(connection_, &message, MSG_CMSG_CLOEXEC);
    if (size <= 0) {
      throw ProtocolError(std::string("ring: ") +
                          (size == 0 ? "the service hung up" : std::strerror(errno)));
    }
    const cmsghdr* header = CMSG_FIRSTHDR(&message);
    if (header != nullptr && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS &&
        header->cmsg_len == CMSG_LEN(sizeof(int))) {
      std::memcpy(descriptor, CMSG_DATA(header), sizeof(int));
    }
    return std::string(packet, static_cast<std::size_t>(size));
  }

  void map_memory(const msgpack::Value& answer, int descriptor, std::size_t slots) {
    constexpr std::size_t kPage = 4096, kLine = 64;
    stride_bytes_ = (slot_bytes_ + kPage - 1) / kPage * kPage;
    first_byte_ = (kLine * (1 + slots) + kPage - 1) / kPage * kPage;
    size_ = first_byte_ + slots * stride_bytes_;
    struct stat found{};
    const auto said = [&](const char* key) {
      return static_cast<std::uint64_t>(answer.at(key).integer);
    };
    if (said("stride_bytes") != stride_bytes_ || said("first_byte") != first_byte_ ||
        fstat(descriptor, &found) != 0 || static_cast<std::uint64_t>(found.st_size) != size_ ||
        (fcntl(descriptor, kGetSeals) & kSeals) != kSeals) {
      throw ProtocolError("ring: what the service handed out is not of the fixed size expected");
    }
    void* mapped = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    if (mapped == MAP_FAILED) throw ProtocolError(std::string("ring: ") + std::strerror(errno));
    memory_ = static_cast<std::uint8_t*>(mapped);
    if (std::memcmp(memory_, "ALGNRING\1\0\0\0", 12) != 0) {
      throw ProtocolError("ring: its header is not one of version 1");
    }
  }

  std::uint64_t* word(int slot) {
    return reinterpret_cast<std::uint64_t*>(memory_ + 64 * (1 + static_cast<std::size_t>(slot)));
  }

  void close_all() {
    if (memory_ != nullptr) munmap(memory_, size_);
    if (connection_ >= 0) close(connection_);
    memory_ = nullptr;
    connection_ = -1;
  }

  std::size_t slot_bytes_;
  std::vector<std::uint64_t> generations_;
  std::vector<int> free_;  // the last one given back is taken first: it is in the caches
  std::map<std::int64_t, int> by_frame_;
  int connection_ = -1;
  std::uint8_t* memory_ = nullptr;
  std::size_t size_ = 0, stride_bytes_ = 0, first_byte_ = 0;
  std::int64_t number_ = 0;
};

}  // namespace algan
