/* SentencePiece models. C++ because the library is; nothing is thrown across the interface.
 *
 * Bytes per token follow the challenge's rule (fairway/tokenizer.h). SentencePiece normalises text
 * before it cuts it, so decode(encode(text)) is the normalised text.
 * Source: Kudo and Richardson, "SentencePiece", 2018. */
#include <fairway/fairway.h>
#include <sentencepiece_processor.h>
#include <sha2.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <vector>

namespace {

constexpr uint32_t most_tokens = 65536;         /* shards store uint16 */
constexpr char leading_mark[] = "\xe2\x96\x81"; /* U+2581 stands for a space */
constexpr size_t mark_bytes = sizeof leading_mark - 1;

struct tokenizer {
    sentencepiece::SentencePieceProcessor processor;
    std::vector<fw_token_info> table;
    uint8_t hash[32];
};

/* Run `body`, turning whatever it throws into a status. */
template <typename Body> fw_status guarded(fw_error *error, Body body) noexcept {
    try {
        return body();
    } catch (const std::bad_alloc &) {
        return fw_fail(error, FW_E_MEMORY, "sentencepiece: out of memory");
    } catch (const std::exception &e) {
        return fw_fail(error, FW_E_INTERNAL, "sentencepiece: %s", e.what());
    } catch (...) {
        return fw_fail(error, FW_E_INTERNAL, "sentencepiece: an unknown exception");
    }
}

fw_status read_file(const char *path, std::string *bytes, fw_error *error) {
    const std::unique_ptr<std::FILE, int (*)(std::FILE *)> file(std::fopen(path, "rb"),
                                                                std::fclose);
    if (file == nullptr)
        return fw_fail(error, FW_E_IO, "%s: cannot be opened: %s", path, std::strerror(errno));
    char chunk[65536];
    for (size_t n; (n = std::fread(chunk, 1, sizeof chunk, file.get())) > 0;)
        bytes->append(chunk, n);
    if (std::ferror(file.get()) != 0)
        return fw_fail(error, FW_E_IO, "%s: cannot be read: %s", path, std::strerror(errno));
    if (bytes->empty()) return fw_fail(error, FW_E_IO, "%s: is empty", path);
    return FW_OK;
}

fw_token_info describe(const sentencepiece::SentencePieceProcessor &processor, int id) {
    fw_token_info info = {sizeof(fw_token_info), 0, 0, 0};
    if (processor.IsControl(id) || processor.IsUnknown(id) || processor.IsUnused(id)) {
        info.boundary = 1;
    } else if (processor.IsByte(id)) {
        info.base_bytes = 1;
    } else {
        const std::string &piece = processor.IdToPiece(id);
        info.leading_space = piece.compare(0, mark_bytes, leading_mark) == 0;
        info.base_bytes =
            static_cast<uint16_t>(piece.size() - (info.leading_space ? mark_bytes : 0));
    }
    return info;
}

fw_status load(tokenizer *self, const char *path, fw_error *error) {
    std::string bytes;
    FW_TRY(read_file(path, &bytes, error));
    const auto status = self->processor.LoadFromSerializedProto(bytes);
    if (!status.ok())
        return fw_fail(error, FW_E_FORMAT, "%s: not a SentencePiece model: %s", path,
                       status.error_message());
    const int pieces = self->processor.GetPieceSize();
    if (pieces < 1 || static_cast<uint32_t>(pieces) > most_tokens)
        return fw_fail(error, FW_E_LIMIT, "%s: %d pieces, but 1 to %u are supported", path, pieces,
                       most_tokens);
    self->table.reserve(static_cast<size_t>(pieces));
    for (int id = 0; id < pieces; id++) self->table.push_back(describe(self->processor, id));
    SHA2_CTX context;
    SHA256Init(&context);
    SHA256Update(&context, reinterpret_cast<const uint8_t *>(bytes.data()), bytes.size());
    SHA256Final(self->hash, &context);
    return FW_OK;
}

fw_status encode_text(const tokenizer &self, const char *text, size_t bytes, uint16_t *tokens,
                      size_t *n_tokens, fw_error *error) {
    std::vector<int> ids;
    const auto status = self.processor.Encode(absl::string_view(text, bytes), &ids);
    if (!status.ok())
        return fw_fail(error, FW_E_FORMAT, "sentencepiece: text of %zu bytes: %s", bytes,
                       status.error_message());
    if (ids.size() > *n_tokens)
        return fw_fail(error, FW_E_BUFFER, "sentencepiece: %zu tokens do not fit a buffer of %zu",
                       ids.size(), *n_tokens);
    for (size_t i = 0; i < ids.size(); i++) tokens[i] = static_cast<uint16_t>(ids[i]);
    *n_tokens = ids.size();
    return FW_OK;
}

fw_status decode_tokens(const tokenizer &self, const uint16_t *tokens, size_t n_tokens, char *text,
                        size_t *bytes, fw_error *error) {
    for (size_t i = 0; i < n_tokens; i++)
        if (tokens[i] >= self.table.size())
            return fw_fail(error, FW_E_RANGE,
                           "sentencepiece: token %zu is %u, but must be below %zu", i, tokens[i],
                           self.table.size());
    std::string decoded;
    const auto status =
        self.processor.Decode(std::vector<int>(tokens, tokens + n_tokens), &decoded);
    if (!status.ok())
        return fw_fail(error, FW_E_FORMAT, "sentencepiece: %s", status.error_message());
    const size_t capacity = *bytes;
    *bytes = decoded.size();
    if (decoded.size() > capacity)
        return fw_fail(error, FW_E_BUFFER, "sentencepiece: %zu bytes do not fit a buffer of %zu",
                       decoded.size(), capacity);
    if (!decoded.empty()) std::memcpy(text, decoded.data(), decoded.size());
    return FW_OK;
}

extern "C" {

fw_status create(const fw_host *, const fw_value *values, void **self, fw_error *error) {
    if (values[0].text == nullptr || *values[0].text == '\0')
        return fw_fail(error, FW_E_CONFIG, "sentencepiece: model = PATH is required");
    return guarded(error, [&]() -> fw_status {
        auto made = std::make_unique<tokenizer>();
        FW_TRY(load(made.get(), values[0].text, error));
        *self = made.release();
        return FW_OK;
    });
}

void destroy(void *self) { delete static_cast<tokenizer *>(self); }

uint32_t vocabulary(void *self) {
    return static_cast<uint32_t>(static_cast<tokenizer *>(self)->table.size());
}

void token(void *self, uint32_t token, fw_token_info *info) {
    const auto &table = static_cast<tokenizer *>(self)->table;
    if (token >= table.size()) return;
    info->base_bytes = table[token].base_bytes;
    info->leading_space = table[token].leading_space;
    info->boundary = table[token].boundary;
}

int64_t begin_token(void *self) { return static_cast<tokenizer *>(self)->processor.bos_id(); }

void fingerprint(void *self, uint8_t hash[32]) {
    std::memcpy(hash, static_cast<tokenizer *>(self)->hash, 32);
}

/* Normalisation expands at most 3 bytes (U+FDFA) to 15 letters of 2 bytes and 3 spaces, which
 * become U+2581: 39 bytes, each a token when the model falls back to bytes. The rest is the space
 * that SentencePiece may put before the text. */
size_t bound(void *, size_t bytes) { return bytes < SIZE_MAX / 16 ? 13 * bytes + 3 : SIZE_MAX; }

fw_status encode(void *self, const char *text, size_t bytes, uint16_t *tokens, size_t *n_tokens,
                 fw_error *error) {
    return guarded(error, [&]() -> fw_status {
        return encode_text(*static_cast<tokenizer *>(self), text, bytes, tokens, n_tokens, error);
    });
}

fw_status decode(void *self, const uint16_t *tokens, size_t n_tokens, char *text, size_t *bytes,
                 fw_error *error) {
    return guarded(error, [&]() -> fw_status {
        return decode_tokens(*static_cast<tokenizer *>(self), tokens, n_tokens, text, bytes, error);
    });
}

} /* extern "C" */

const fw_param params[] = {
    FW_PARAM_PLAIN(FW_PARAM_PATH, "model", nullptr, "the SentencePiece model file"),
};

const fw_tokenizer vtable = {sizeof(fw_tokenizer), 0,           create, destroy, vocabulary, token,
                             begin_token,          fingerprint, bound,  encode,  decode};

const fw_plugin plugin = {sizeof(fw_plugin),
                          FW_TOKENIZER,
                          "sentencepiece",
                          "1.0.0",
                          "SentencePiece models, unigram or BPE",
                          "Fairway",
                          "MIT",
                          FW_CPU | FW_CUDA,
                          1,
                          params,
                          &vtable,
                          nullptr};

} /* namespace */

FW_DEFINE_MODULE(&plugin);
