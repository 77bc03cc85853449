// Does what it is told, one line at a time, with Arrow's C++ client of Plasma.
//
//     cpp_client SOCKET
//
// Each line on standard input is an operation with its arguments, each line on standard output its
// answer: "ok" with results, or "error KIND MESSAGE". Bytes are written as hexadecimal digits, as
// "HH*N" for one byte N times, or as "-" for none. Words and answers are those of
// python_client.py, and further: abort, batch, refresh.
#include <plasma/client.h>
#include <plasma/common.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using Words = std::vector<std::string>;
using arrow::Status;
using plasma::ObjectID;

struct Refused : std::runtime_error {
  Refused(std::string kind, const std::string& message)
      : std::runtime_error(message), kind(std::move(kind)) {}
  std::string kind;
};

void Check(const Status& status) {
  if (status.ok()) return;
  std::string kind = plasma::IsPlasmaObjectExists(status)          ? "exists"
                     : plasma::IsPlasmaStoreFull(status)           ? "full"
                     : plasma::IsPlasmaObjectNotFound(status)      ? "notfound"
                     : plasma::IsPlasmaObjectAlreadySealed(status) ? "sealed"
                                                                   : "other";
  throw Refused(kind, status.ToString());
}

std::string Hex(const uint8_t* bytes, size_t count) {
  static const char digits[] = "0123456789abcdef";
  std::string text;
  text.reserve(2 * count);
  for (size_t i = 0; i < count; i++) {
    text += digits[bytes[i] >> 4];
    text += digits[bytes[i] & 15];
  }
  return text;
}

std::string Encoded(const uint8_t* bytes, size_t count) {
  if (count == 0) return "-";
  bool alike = std::all_of(bytes, bytes + count, [&](uint8_t byte) { return byte == *bytes; });
  if (count > 32 && alike) return Hex(bytes, 1) + "*" + std::to_string(count);
  return Hex(bytes, count);
}

std::string Encoded(const std::string& text) {
  return Encoded(reinterpret_cast<const uint8_t*>(text.data()), text.size());
}

uint8_t Digit(char digit) { return digit <= '9' ? digit - '0' : digit - 'a' + 10; }

std::string Decoded(const std::string& word) {
  if (word == "-") return "";
  size_t star = word.find('*');
  std::string bytes;
  for (size_t i = 0; i + 1 < std::min(star, word.size()); i += 2) {
    bytes += static_cast<char>(Digit(word[i]) << 4 | Digit(word[i + 1]));
  }
  if (star == std::string::npos) return bytes;
  return std::string(std::stoull(word.substr(star + 1)), bytes.at(0));
}

ObjectID Id(const std::string& name) { return ObjectID::from_binary(Decoded(name)); }

std::vector<ObjectID> Ids(const Words& names, size_t from = 0) {
  std::vector<ObjectID> ids;
  for (size_t i = from; i < names.size(); i++) ids.push_back(Id(names[i]));
  return ids;
}

class Client {
 public:
  explicit Client(const std::string& socket) { Check(plasma_.Connect(socket, "", 0, 1)); }

  Words Do(const std::string& operation, const Words& words) {
    static const std::map<std::string, Words (Client::*)(const Words&)> operations = {
        {"create", &Client::Create},     {"write", &Client::Write},
        {"seal", &Client::Seal},         {"abort", &Client::Abort},
        {"put", &Client::Put},           {"batch", &Client::Batch},
        {"get", &Client::Get},           {"release", &Client::Release},
        {"contains", &Client::Contains}, {"delete", &Client::Delete},
        {"list", &Client::List},         {"evict", &Client::Evict},
        {"refresh", &Client::Refresh},   {"options", &Client::Options},
        {"debug", &Client::Debug},       {"subscribe", &Client::Subscribe},
        {"capacity", &Client::Capacity}, {"notification", &Client::Notification},
        {"digest", &Client::Digest},
    };
    return (this->*operations.at(operation))(words);
  }

 private:
  // What was sent without an answer has been done once something else is answered.
  void Settle() {
    bool there;
    Check(plasma_.Contains(ObjectID::from_binary(std::string(20, 's')), &there));
  }

  Words Create(const Words& words) {
    std::string metadata = Decoded(words.at(2));
    std::shared_ptr<arrow::Buffer> data;
    Check(plasma_.Create(Id(words.at(0)), std::stoll(words.at(1)),
                         reinterpret_cast<const uint8_t*>(metadata.data()), metadata.size(), &data));
    held_[words[0]].push_back(data);
    return {};
  }

  Words Write(const Words& words) {
    std::string data = Decoded(words.at(1));
    std::memcpy(held_.at(words[0]).back()->mutable_data(), data.data(), data.size());
    return {};
  }

  Words Seal(const Words& words) {
    Check(plasma_.Seal(Id(words.at(0))));
    return {};
  }

  // The buffer has to go before the object may be aborted.
  Words Abort(const Words& words) {
    auto buffers = held_.find(words.at(0));
    if (buffers != held_.end()) {
      // A buffer of an object that is not sealed releases nothing by itself.
      held_.erase(buffers);
      Check(plasma_.Release(Id(words[0])));
    }
    Check(plasma_.Abort(Id(words[0])));
    return {};
  }

  Words Put(const Words& words) {
    Check(plasma_.CreateAndSeal(Id(words.at(0)), Decoded(words.at(1)), Decoded(words.at(2))));
    return {};
  }

  Words Batch(const Words& words) {
    std::vector<ObjectID> ids;
    std::vector<std::string> data, metadata;
    for (size_t i = 0; i + 2 < words.size(); i += 3) {
      ids.push_back(Id(words[i]));
      data.push_back(Decoded(words[i + 1]));
      metadata.push_back(Decoded(words[i + 2]));
    }
    Check(plasma_.CreateAndSealBatch(ids, data, metadata));
    return {};
  }

  Words Get(const Words& words) {
    std::vector<plasma::ObjectBuffer> found;
    Check(plasma_.Get(Ids(words, 1), std::stoll(words.at(0)), &found));
    Words answer;
    for (size_t i = 0; i < found.size(); i++) {
      const auto& object = found[i];
      if (object.data == nullptr) {
        answer.push_back(".");
        continue;
      }
      answer.push_back(Encoded(object.data->data(), object.data->size()) + "/" +
                       Encoded(object.metadata->data(), object.metadata->size()));
      held_[words[i + 1]].push_back(object.data);
    }
    return answer;
  }

  Words Release(const Words& words) {
    auto& buffers = held_.at(words.at(0));
    bool created = buffers.back()->is_mutable();
    buffers.pop_back();
    // Buffers from a get release by themselves, those from a create do not.
    if (created) Check(plasma_.Release(Id(words[0])));
    Settle();
    return {};
  }

  Words Contains(const Words& words) {
    bool there;
    Check(plasma_.Contains(Id(words.at(0)), &there));
    return {there ? "1" : "0"};
  }

  Words Delete(const Words& words) {
    Check(plasma_.Delete(Ids(words)));
    return {};
  }

  Words List(const Words&) {
    plasma::ObjectTable objects;
    Check(plasma_.List(&objects));
    Words answer;
    for (const auto& [id, info] : objects) {
      std::ostringstream line;
      line << id.hex() << ':' << info->data_size << ':' << info->metadata_size << ':'
           << info->ref_count << ':' << (info->state == plasma::ObjectState::PLASMA_SEALED);
      answer.push_back(line.str());
    }
    return answer;
  }

  Words Evict(const Words& words) {
    int64_t evicted = -1;
    Check(plasma_.Evict(std::stoll(words.at(0)), evicted));
    return {std::to_string(evicted)};
  }

  Words Refresh(const Words& words) {
    Check(plasma_.Refresh(Ids(words)));
    return {};
  }

  Words Options(const Words& words) {
    Check(plasma_.SetClientOptions(Decoded(words.at(0)), std::stoll(words.at(1))));
    return {};
  }

  Words Debug(const Words&) { return {Encoded(plasma_.DebugString())}; }

  Words Subscribe(const Words&) {
    Check(plasma_.Subscribe(&notifications_));
    Settle();
    return {};
  }

  // All that one message tells.
  Words Notification(const Words& words) {
    pollfd ready = {notifications_, POLLIN, 0};
    if (poll(&ready, 1, std::stoi(words.at(0))) == 0) return {};
    int64_t length;
    Receive(&length, sizeof length);
    // Flatbuffers are read from aligned memory.
    std::vector<uint64_t> message(length / 8 + 1);
    Receive(message.data(), length);
    std::vector<ObjectID> ids;
    std::vector<int64_t> data_sizes, metadata_sizes;
    Check(plasma_.DecodeNotifications(reinterpret_cast<uint8_t*>(message.data()), &ids, &data_sizes,
                                      &metadata_sizes));
    Words answer;
    for (size_t i = 0; i < ids.size(); i++) {
      answer.push_back(ids[i].hex() + ":" + std::to_string(data_sizes[i]) + ":" +
                       std::to_string(metadata_sizes[i]));
    }
    return answer;
  }

  void Receive(void* to, size_t count) {
    for (auto* next = static_cast<char*>(to); count > 0;) {
      ssize_t received = read(notifications_, next, count);
      if (received <= 0) throw std::runtime_error("the store ended the subscription");
      next += received;
      count -= received;
    }
  }

  Words Capacity(const Words&) { return {std::to_string(plasma_.store_capacity())}; }

  Words Digest(const Words& words) {
    uint8_t digest[plasma::kDigestSize];
    Check(plasma_.Hash(Id(words.at(0)), digest));
    return {Hex(digest, sizeof digest)};
  }

  plasma::PlasmaClient plasma_;
  // Buffers that keep objects in use, by id.
  std::map<std::string, std::vector<std::shared_ptr<arrow::Buffer>>> held_;
  int notifications_ = -1;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: cpp_client SOCKET\n";
    return 2;
  }
  std::ios::sync_with_stdio(false);
  Client client(argv[1]);
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream input(line);
    std::string operation;
    input >> operation;
    Words words;
    for (std::string word; input >> word;) words.push_back(word);
    try {
      Words answer = client.Do(operation, words);
      std::cout << "ok";
      for (const auto& word : answer) std::cout << ' ' << word;
    } catch (const Refused& refused) {
      std::cout << "error " << refused.kind << ' ' << refused.what();
    } catch (const std::exception& error) {
      std::cout << "error other " << error.what();
    }
    std::cout << std::endl;
  }
}
