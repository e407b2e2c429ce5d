/* Hashes, ciphers and curves: assembly with unwind information of every kind. */
#include <openssl/ec.h>
#include <openssl/evp.h>

static unsigned char text[16384], out[16400];

static void encrypt(const EVP_CIPHER *cipher)
{
	static const unsigned char key[64], iv[16];
	EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
	int len;

	EVP_EncryptInit_ex(context, cipher, NULL, key, iv);
	EVP_EncryptUpdate(context, out, &len, text, sizeof(text));
	EVP_CIPHER_CTX_free(context);
}

static void digest(const EVP_MD *kind)
{
	unsigned len;

	EVP_Digest(text, sizeof(text), out, &len, kind, NULL);
}

int main(void)
{
	for (;;) {
		for (int i = 0; i < 10; i++) {
			digest(EVP_sha1());
			digest(EVP_sha256());
			digest(EVP_sha512());
			encrypt(EVP_aes_256_gcm());
			encrypt(EVP_aes_128_cbc());
			encrypt(EVP_chacha20_poly1305());
		}
		EVP_PKEY_free(EVP_EC_gen("P-256"));
		EVP_PKEY_free(EVP_EC_gen("P-384"));
		EVP_PKEY_free(EVP_PKEY_Q_keygen(NULL, NULL, "X25519"));
	}
}
