// Counters over TCP in C++: threads_server PORT. `<key>` is answered with how often it was named.
//
// A thread for each connection reads; four workers wait on a condition variable and count, each with a
// thread_local tally of its own; before each answer an exception travels back, and takes its time.
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <future>
#include <map>
#include <mutex>
#include <shared_mutex>
#include <stdexcept>
#include <string>
#include <thread>

namespace {

class Pool {
  public:
    explicit Pool(int workers)
    {
        for (int i = 0; i < workers; i++)
            std::thread([this] { work(); }).detach();
    }

    std::future<long> submit(std::function<long()> job)
    {
        std::packaged_task<long()> task(std::move(job));
        auto result = task.get_future();
        {
            std::lock_guard<std::mutex> hold(mutex_);
            jobs_.push_back(std::move(task));
        }
        there_is_one_.notify_one();
        return result;
    }

  private:
    [[noreturn]] void work()
    {
        for (;;) {
            std::unique_lock<std::mutex> hold(mutex_);
            there_is_one_.wait(hold, [this] { return !jobs_.empty(); });
            auto job = std::move(jobs_.front());
            jobs_.pop_front();
            hold.unlock();
            job();
        }
    }

    std::mutex mutex_;
    std::condition_variable there_is_one_;
    std::deque<std::packaged_task<long()>> jobs_;
};

std::map<std::string, long> counts;
std::map<std::thread::id, long> tallies; // what each thread's own must be
std::shared_mutex counts_lock;

struct Tally {
    std::string name = "tally";
    long count = 0;
};
thread_local Tally tally;

long count(const std::string &key)
{
    if (key.rfind("key", 0) != 0)
        throw std::invalid_argument(key);
    std::unique_lock<std::shared_mutex> hold(counts_lock);
    if (++tally.count != ++tallies[std::this_thread::get_id()] || tally.name != "tally")
        return -1;
    return ++counts[key];
}

// While an exception is being handled, and another one is under way beneath it, others go on and commit.
struct Pause {
    ~Pause() { usleep(500); }
};

long fail()
{
    try {
        Pause pause;
        return count("bad");
    } catch (const std::exception &) {
        usleep(500);
        try {
            throw std::runtime_error("inner");
        } catch (const std::runtime_error &) {
            usleep(500);
        }
        throw; // the first one
    }
}

void serve(int connection, Pool &pool)
{
    FILE *in = fdopen(connection, "r");
    char line[256];
    while (fgets(line, sizeof line, in)) {
        std::string key(line, std::string(line).find('\n'));
        std::string answer;
        try {
            pool.submit(fail).get();
            answer = "no exception\n";
        } catch (const std::invalid_argument &) {
            answer = std::to_string(pool.submit([key] { return count(key); }).get()) + "\n";
        }
        if (write(connection, answer.data(), answer.size()) < 0)
            break;
    }
    fclose(in);
}

} // namespace

int main(int, char **argv)
{
    Pool pool(4);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in self = {};
    self.sin_family = AF_INET;
    self.sin_port = htons(static_cast<uint16_t>(atoi(argv[1])));
    self.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, reinterpret_cast<sockaddr *>(&self), sizeof self) < 0 || listen(listener, 64) < 0) {
        perror("threads_server");
        return 1;
    }
    signal(SIGPIPE, SIG_IGN);
    for (;;) {
        int connection = accept(listener, nullptr, nullptr);
        if (connection >= 0)
            std::thread(serve, connection, std::ref(pool)).detach();
    }
}
