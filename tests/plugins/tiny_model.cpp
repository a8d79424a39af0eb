/* Trains the model of tiny_model.h on a few sentences; well under a second. */
#include "tiny_model.h"

#include <sentencepiece_trainer.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace {

char path[4096];

class sentences : public sentencepiece::SentenceIterator {
  public:
    bool done() const override { return next_ == lines_.size(); }
    void Next() override { next_++; }
    const std::string &value() const override { return lines_[next_]; }
    sentencepiece::util::Status status() const override { return {}; }

  private:
    size_t next_ = 0;
    std::vector<std::string> lines_ = {
        "The ship left the harbour in the early morning, before the town was awake.",
        "Nobody on the quay asked where she was going, and nobody on board would have said.",
        "There were 12 sailors, 3 goats and a cook who had never seen the sea before.",
        "By noon the wind had turned; by evening they had lost sight of the last lighthouse.",
        "\"We shall be there in thirty days,\" said the captain, \"or we shall not be there.\"",
        "The cook thought about that, and then he thought about the other thing instead.",
    };
};

bool write_file(int file, const std::string &bytes) {
    FILE *out = fdopen(file, "wb");
    if (out == nullptr) return false;
    const bool written = std::fwrite(bytes.data(), 1, bytes.size(), out) == bytes.size();
    return (std::fclose(out) == 0) && written;
}

bool train() {
    const char *folder = std::getenv("TMPDIR");
    std::snprintf(path, sizeof path, "%s/tiny-model-XXXXXX", folder != nullptr ? folder : "/tmp");
    sentences iterator;
    std::string model;
    const auto status = sentencepiece::SentencePieceTrainer::Train(
        "--model_type=bpe --vocab_size=320 --byte_fallback=true --character_coverage=1.0 "
        "--num_threads=1 --minloglevel=3",
        &iterator, &model);
    if (!status.ok()) return false;
    const int file = mkstemp(path);
    if (file < 0) return false;
    std::atexit([] { (void)unlink(path); });
    return write_file(file, model);
}

} /* namespace */

extern "C" const char *tiny_model_path(void) {
    try {
        static const bool trained = train();
        return trained ? path : nullptr;
    } catch (...) {
        return nullptr;
    }
}
